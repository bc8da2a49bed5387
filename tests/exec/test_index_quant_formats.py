"""Rounding in kernels: every number of a narrow format, every boundary between two of them, and what lies beyond."""

from __future__ import annotations

import pytest
import torch

from dsa_exec.core.numerics import E4M3, E4M3_MAX, e4m3_scale, hadamard, quantise_e4m3

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from dsa_exec.core.kernels import quantise  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK = 1024
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of the interpreter's numpy


@triton.jit
def _round(values_ptr, e4m3_ptr, integer_ptr, bf16_ptr, f16_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(values_ptr + at)
    tl.store(e4m3_ptr + at, quantise.e4m3_codes(values))
    tl.store(integer_ptr + at, quantise.e4m3_codes_by_integers(values))
    tl.store(bf16_ptr + at, quantise.bf16_codes(values))
    tl.store(f16_ptr + at, quantise.f16_codes(values))


@triton.jit
def _widen(narrow_ptr, wide_ptr, integer_ptr, E4M3: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    narrow = tl.load(narrow_ptr + at)
    if E4M3:
        tl.store(wide_ptr + at, quantise.e4m3_values(narrow))
        tl.store(integer_ptr + at, quantise.e4m3_values_by_integers(narrow))
    else:
        tl.store(wide_ptr + at, quantise.widened(narrow))
        tl.store(integer_ptr + at, quantise.widened(narrow))


@triton.jit
def _scale_and_turn(values_ptr, scales_ptr, turned_ptr, POW2: tl.constexpr, ROWS: tl.constexpr):
    rows = tl.arange(0, ROWS)
    at = rows[:, None] * 128 + tl.arange(0, 128)[None, :]
    values = tl.load(values_ptr + at)
    tl.store(scales_ptr + rows, quantise.e4m3_scales(values, POW2))
    tl.store(turned_ptr + at, quantise.rotated(values, ROWS))


@triton.jit
def _quantise(values_ptr, codes_ptr, scales_ptr, POW2: tl.constexpr, ROWS: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = rows[:, None] * 128 + tl.arange(0, 128)[None, :]
    codes, scales = quantise.quantised(tl.load(values_ptr + at), POW2)
    tl.store(codes_ptr + at, codes)
    tl.store(scales_ptr + rows, scales)


def rounded(values: torch.Tensor) -> list[torch.Tensor]:
    """f32 [n * 1024] as e4m3, the same by integers, as bf16 and as f16."""
    dtypes = (E4M3, E4M3, torch.bfloat16, torch.float16)
    bits = {1: torch.uint8, 2: torch.int16}
    out = [torch.empty(values.shape, dtype=bits[dtype.itemsize], device=DEVICE) for dtype in dtypes]
    _round[(values.shape[0] // BLOCK,)](values.to(DEVICE), *out, BLOCK)
    return [codes.view(dtype) for codes, dtype in zip(out, dtypes, strict=True)]


def padded(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, -values.shape[0] % BLOCK))


def expect_rounding_of_torch(values: torch.Tensor) -> None:
    """To the bit, save that one NaN is as good as another; e4m3 after the clamp that a conversion needs."""
    values = padded(values)
    e4m3 = values.clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)
    wanted = [e4m3, e4m3, values.to(torch.bfloat16), values.to(torch.float16)]
    for got, want in zip(rounded(values), wanted, strict=True):
        torch.testing.assert_close(got.cpu().float(), want.float(), rtol=0, atol=0, equal_nan=True)
        number = ~want.float().isnan()
        assert torch.equal(got.cpu().float().signbit()[number], want.float().signbit()[number])


@pytest.mark.parametrize("dtype", [E4M3, torch.bfloat16, torch.float16])
def test_ties_go_to_even_and_neighbours_to_the_nearest(dtype):
    """The middle between any two numbers of the format, the f32 below it and the f32 above it."""
    bits = torch.arange(256, dtype=torch.uint8) if dtype == E4M3 else torch.arange(0, 2**16, 37).to(torch.int16)
    values = bits.view(dtype).float()
    values = values[values.isfinite()].sort().values
    middles = (values[1:] + values[:-1]) / 2
    around = [torch.nextafter(middles, torch.full_like(middles, side)) for side in (-torch.inf, torch.inf)]
    expect_rounding_of_torch(torch.cat([values, middles, *around]))


def test_any_bits_at_all():
    """Random bit patterns: huge, tiny, infinite, NaN."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.randint(-(2**31), 2**31 - 1, (2**15,), generator=generator, dtype=torch.int64).to(torch.int32)
    special = torch.tensor([448.0, 464.0, 480.0, 65504.0, 65519.996, 65520.0, 3.3895e38, torch.inf, torch.nan, 0.0])
    expect_rounding_of_torch(torch.cat([patterns.view(torch.float32), special, -special]))


@pytest.mark.parametrize("dtype", [E4M3, torch.bfloat16, torch.float16])
def test_widening_is_exact(dtype):
    """Every number of the format, NaN as NaN, by the device's conversion and by integers."""
    bits = torch.arange(256).repeat(4).to(torch.uint8) if dtype == E4M3 else torch.arange(2**16).to(torch.int16)
    narrow = bits.to(DEVICE) if dtype == E4M3 else bits.view(dtype).to(DEVICE)
    out = [torch.empty(bits.shape, device=DEVICE) for _ in range(2)]
    _widen[(bits.shape[0] // BLOCK,)](narrow, *out, dtype == E4M3, BLOCK)
    for wide in out:
        torch.testing.assert_close(wide.cpu(), bits.view(dtype).float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("pow2", [False, True])
def test_quotients_are_rounded_once(pow2):
    """A million values over their scales, -0 among them: the codes of a division, to the bit."""
    rows = 64 if DEVICE.type == "cpu" else 8192
    generator = torch.Generator().manual_seed(9)
    values = torch.rand(rows, 128, generator=generator) * 2 - 1
    values *= torch.exp2(torch.randint(-40, 120, (rows, 1), generator=generator).float())
    values[::3, ::5], values[1::3, ::7] = 0.0, -0.0
    values = values.to(DEVICE)
    codes, scales = torch.empty(rows, 128, dtype=torch.uint8, device=DEVICE), torch.empty(rows, device=DEVICE)
    _quantise[(rows // 64,)](values, codes, scales, pow2, 64)
    wanted, wanted_scales = quantise_e4m3(values, 128, pow2=pow2)
    assert torch.equal(codes, wanted.view(torch.uint8))
    assert torch.equal(scales, wanted_scales[:, 0])


@pytest.mark.parametrize("pow2", [False, True])
def test_scales_and_rotation_are_the_specifications(pow2):
    """Scales on and around powers of two, and sums in the specification's order: equal to the bit."""
    values = torch.randn(64, 128, generator=torch.Generator().manual_seed(7))
    values[:48] = 0
    edges = 448 * torch.exp2(torch.arange(-8.0, 8.0))
    values[:16, 3], values[16:32, 5], values[32:48, 0] = edges, edges.nextafter(edges * 2), -edges.nextafter(edges / 2)
    scales, turned = torch.empty(64, device=DEVICE), torch.empty(64, 128, device=DEVICE)
    _scale_and_turn[(1,)](values.to(DEVICE), scales, turned, pow2, 64)
    assert torch.equal(scales.cpu(), e4m3_scale(values.abs().amax(1), pow2=pow2))
    assert torch.equal(turned.cpu(), hadamard(values))
