"""Number formats: scales, rounding, rotation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import number_formats

from dsa_exec.core.numerics import E4M3, e4m3_scale, hadamard, quantise_e4m3


def scale(amax: float, *, pow2: bool = False) -> float:
    return float(e4m3_scale(torch.tensor(amax), pow2=pow2))


def test_published_scales():
    """amax 1: 0.00223214, rounded 2**-8; amax 0: the floor, 2.232e-07."""
    assert scale(1.0) == pytest.approx(0.00223214, rel=1e-5)
    assert scale(1.0, pow2=True) == 0.00390625
    assert scale(0.0) == pytest.approx(2.232e-07, rel=1e-3)


@given(st.floats(min_value=0, max_value=2.0**127, width=32))
def test_rounded_scales_are_the_least_power_of_two_not_below(amax):
    """Exactly a power of two, at least the plain scale, less than twice it."""
    plain, rounded = scale(amax), scale(amax, pow2=True)
    assert math.frexp(rounded)[0] == 0.5
    assert plain <= rounded < 2 * plain


@pytest.mark.parametrize("exponent", [-10, 0, 7])
def test_a_scale_that_is_a_power_of_two_stays(exponent):
    """448 * 2**n has scale 2**n, rounded or not."""
    assert scale(448 * 2.0**exponent, pow2=True) == 2.0**exponent == scale(448 * 2.0**exponent)


def test_every_e4m3_code_survives():
    """Codes decode and encode to themselves, in torch and in the oracle alike."""
    codes = torch.arange(256, dtype=torch.uint8)
    values = codes.view(E4M3).float().tolist()
    for code, value in enumerate(values):
        expected = number_formats.decode(code)
        assert value == expected or (math.isnan(value) and math.isnan(expected))
        if not math.isnan(expected):
            assert number_formats.encode(expected) == code


@given(st.lists(st.floats(-448, 448, width=32), min_size=1, max_size=50))
def test_rounding_is_to_the_nearest_even(values):
    """torch and the oracle round every number to the same code."""
    codes = torch.tensor(values).to(E4M3).view(torch.uint8).tolist()
    assert codes == [number_formats.encode(value) for value in values]


def test_a_block_of_zeros_gives_zeros():
    """T29: no scale of zero, no NaN."""
    quantised, scales = quantise_e4m3(torch.zeros(2, 256), 128)
    assert (quantised.float() == 0).all()
    assert (scales > 0).all()
    assert scales.shape == (2, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_rotation_is_done_in_f32(dtype):
    """Narrow numbers are widened before they are added up, not after."""
    narrow = torch.randn(5, 128, generator=torch.Generator().manual_seed(3)).to(dtype)
    rotated = hadamard(narrow)
    assert rotated.dtype == torch.float32
    assert torch.equal(rotated, hadamard(narrow.float()))


def test_the_rotation_is_orthogonal_and_its_own_inverse():
    """Lengths and dot products stay, and rotating twice gives the vector back."""
    generator = torch.Generator().manual_seed(3)
    left, right = torch.randn(2, 5, 128, generator=generator)
    torch.testing.assert_close((hadamard(left) * hadamard(right)).sum(-1), (left * right).sum(-1), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(hadamard(hadamard(left)), left, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hadamard(left[0]), torch.tensor(number_formats.rotate(left[0].tolist())))
