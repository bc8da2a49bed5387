"""Index queries in Triton: the specification's bits, whatever the dtype, the rotation and the strides."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import index_quant
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.layouts.index_k import IndexKLayout

pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton"),
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),  # of the interpreter's numpy
]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYOUTS = [
    IndexKLayout(hadamard=hadamard, pow2_scale=pow2_scale) for hadamard in (False, True) for pow2_scale in (False, True)
]
MODEL = IndexKLayout("model", head_dim=40, element_bytes=2)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)


def by(backend: str, *args, **more):
    with settings.override(index_quant_backend=backend, **more):
        return index_quant(*args)


def expect_same_bits(q: torch.Tensor, weights: torch.Tensor, layout: IndexKLayout, **more) -> None:
    wanted, got = by("torch", q, weights, layout), by("triton", q, weights, layout, **more)
    assert torch.equal(got[0].view(torch.uint8), wanted[0].view(torch.uint8))
    assert torch.equal(got[1].view(torch.int32), wanted[1].view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_are_those_of_the_specification(layout, dtype):
    """Codes and head weights are equal to the bit, over 40 powers of two, zeros and blocks below the floor."""
    exponents = torch.linspace(-30, 9, 40, device=DEVICE)
    q = normal(40, 3, 128) * torch.exp2(exponents)[:, None, None]
    q[7, 1] = 0
    q[8, :, 1:] = 0
    expect_same_bits(q.to(dtype), normal(40, 3, dtype=dtype), layout)


def test_heads_and_rows_lie_where_their_strides_say():
    """Heads apart, rows apart, the same row for all, and weights of a single head in a column."""
    wide = normal(6, 9, 256)
    weights = normal(9, 8)
    expect_same_bits(wide[:, 1:5, 64:192], weights[:6, 2:6], LAYOUTS[0])
    expect_same_bits(wide.transpose(0, 1)[:, :, :128], weights[:, :6], LAYOUTS[0])
    expect_same_bits(wide[:1, :, :128].expand(9, 9, 128)[:, :8], weights, LAYOUTS[0])
    expect_same_bits(wide[:, 3:4, :128], weights.T[:6, 5:6], LAYOUTS[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_and_infinity_come_out_as_in_the_specification(layout):
    """NaN is NaN where the specification has it, and every number is its number."""
    q, weights = normal(4, 2, 128), normal(4, 2)
    q[0, 0, 5], q[1, 1, 7], q[2, 0, 100], weights[3, 0] = torch.nan, torch.inf, -torch.inf, torch.nan
    wanted, got = by("torch", q, weights, layout), by("triton", q, weights, layout)
    torch.testing.assert_close(got[0].float(), wanted[0].float(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(got[1], wanted[1], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_without_quantising_queries_are_returned_as_they_are(dtype):
    """In the model format q is the very tensor, and head weights have the scale of its width."""
    q, weights = normal(5, 3, 40, dtype=dtype), normal(5, 3, dtype=dtype)
    returned, head_weights = by("triton", q, weights, MODEL)
    assert returned is q
    assert torch.equal(head_weights, by("torch", q, weights, MODEL)[1])


@pytest.mark.parametrize("launch", ["rows=1", "rows=64", "warps=1"])
def test_launch_parameters_change_nothing(launch):
    """Whatever `kernel_launch` says, the bits are the same."""
    expect_same_bits(normal(5, 3, 128), normal(5, 3), LAYOUTS[3], kernel_launch=f"index_quant.triton.{launch}")


def test_what_needs_a_gradient_is_refused():
    """The kernel passes none: by name that is an error, `auto` takes torch, and without gradients it runs."""
    q, weights = normal(1, 2, 128), normal(1, 2).requires_grad_()
    with pytest.raises(UnsupportedCall, match="weights requires a gradient"):
        by("triton", q, weights, LAYOUTS[0])
    by("auto", q, weights, LAYOUTS[0])[1].sum().backward()
    assert weights.grad is not None
    with torch.no_grad():
        expect_same_bits(q, weights, LAYOUTS[0])
