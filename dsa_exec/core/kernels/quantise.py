"""Number formats in kernels: the same bits on every device and under Triton's interpreter.

Recent devices convert as IEEE 754 says. The interpreter truncates, and older devices have no e4m3; there numbers are
rounded by integer arithmetic. Both agree to the bit with `core/numerics.py`, but a NaN may come out as another NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.target_info import cuda_capability_geq

from dsa_exec.core.triton_support import is_interpreted

INTERPRETED = tl.constexpr(is_interpreted())


@triton.jit
def widened(values):
    """Floats of any width as f32, exactly."""
    if values.dtype == tl.bfloat16:
        return (values.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return values.to(tl.float32)


@triton.jit
def e4m3_codes(values):
    """The uint8 codes of f32 values as e4m3: to the nearest even, no more than ±448, NaN as NaN."""
    if cuda_capability_geq(8, 9) and not INTERPRETED:
        return values.to(tl.float8e4nv).to(tl.uint8, bitcast=True)
    return e4m3_codes_by_integers(values)


@triton.jit
def e4m3_codes_by_integers(values):
    """What `e4m3_codes` gives, on any device."""
    bits = values.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    capped = tl.minimum(magnitude, 0x43E00000)  # 448
    # The exponent's bias goes from 127 to 7. Half of the last place is added, less one bit where the place is even.
    normal = (capped - (120 << 23) + 0x7FFFF + ((capped >> 20) & 1)) >> 20
    # Below 2**-6 the last place is 2**-9, as it is of an f32 in [2**14, 2**15): the sum rounds.
    shifted = capped.to(tl.float32, bitcast=True) + 16384.0
    subnormal = shifted.to(tl.int32, bitcast=True) - (141 << 23)
    codes = tl.where(capped < (121 << 23), subnormal, normal)
    codes = tl.where(magnitude > 0x7F800000, 0x7F, codes)
    return (codes | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def e4m3_values(codes):
    """The f32 values of uint8 codes of e4m3."""
    if cuda_capability_geq(8, 9) and not INTERPRETED:
        return codes.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    return e4m3_values_by_integers(codes)


@triton.jit
def e4m3_values_by_integers(codes):
    """What `e4m3_values` gives, on any device."""
    bits = codes.to(tl.int32)
    magnitude = bits & 0x7F
    normal = ((magnitude << 20) + (120 << 23)).to(tl.float32, bitcast=True)
    values = tl.where(magnitude < 8, magnitude.to(tl.float32) * 0.001953125, normal)  # 2**-9
    values = tl.where(magnitude == 0x7F, float("nan"), values)
    return (values.to(tl.int32, bitcast=True) | ((bits & 0x80) << 24)).to(tl.float32, bitcast=True)


@triton.jit
def bf16_codes(values):
    """The bits, int16, of f32 values as bf16: to the nearest even."""
    if not INTERPRETED:
        return values.to(tl.bfloat16).to(tl.int16, bitcast=True)
    bits = values.to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, 0x7FC0, rounded).to(tl.int16)


@triton.jit
def f16_codes(values):
    """The bits, int16, of f32 values as f16: to the nearest even, infinite from 65520 on."""
    if not INTERPRETED:
        return values.to(tl.float16).to(tl.int16, bitcast=True)
    bits = values.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    capped = tl.minimum(magnitude, 0x47800000)  # 65536, which becomes infinity
    normal = (capped - (112 << 23) + 0xFFF + ((capped >> 13) & 1)) >> 13
    shifted = capped.to(tl.float32, bitcast=True) + 0.5  # below 2**-14 the last place is 2**-24, as in [0.5, 1)
    subnormal = shifted.to(tl.int32, bitcast=True) - (126 << 23)
    codes = tl.where(capped < (113 << 23), subnormal, normal)
    codes = tl.where(magnitude > 0x7F800000, 0x7E00, codes)
    return (codes | ((bits >> 16) & 0x8000)).to(tl.int16)


@triton.jit
def e4m3_scales(values, POW2: tl.constexpr):
    """The scale of each row of f32 [rows, block]: max(amax, 1e-4) / 448, with POW2 the power of two at or above it."""
    # Magnitudes are in the order of their bits, NaN above all, so that it is not lost on the way.
    bits = values.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    largest = tl.maximum(tl.max(bits, 1), 0x38D1B717)  # 1e-4
    scales = tl.math.div_rn(largest.to(tl.float32, bitcast=True), 448.0)
    if POW2:
        exact = scales.to(tl.int32, bitcast=True)
        power = (exact + 0x7FFFFF) & 0x7F800000
        # frexp, which says how `core/numerics.py` rounds, has no exponent for infinity and NaN: their scale is 1.
        scales = tl.where(exact >= 0x7F800000, 1.0, power.to(tl.float32, bitcast=True))
    return scales


@triton.jit
def _divided(values, scales, POW2: tl.constexpr):
    """f32 [rows, block] / f32 [rows], to the nearest even, where scales are what `e4m3_scales` gives."""
    if INTERPRETED:  # its fused multiply-add rounds twice
        return tl.math.div_rn(values, tl.broadcast_to(scales[:, None], values.shape))
    reciprocals = tl.math.div_rn(1.0, scales)
    quotients = values * reciprocals[:, None]
    if not POW2:
        # Markstein's division: with a reciprocal that is rounded right, the first step gives one of the two nearest
        # quotients and the second the nearest. No step overflows with these scales, and what underflows has the code
        # 0. Remainders are taken negative, so that -0 stays -0; a scale of infinity leaves none, instead of NaN.
        divisors = tl.where(scales == float("inf"), 0.0, scales)[:, None]
        for _ in tl.static_range(2):
            quotients = tl.fma(tl.fma(quotients, divisors, -values), -reciprocals[:, None], quotients)
    return quotients


@triton.jit
def quantised(values, POW2: tl.constexpr):
    """Codes, uint8 [rows, block], and scales, f32 [rows], of f32 [rows, block]."""
    scales = e4m3_scales(values, POW2)
    return e4m3_codes(_divided(values, scales, POW2)), scales


@triton.jit
def rotated(values, ROWS: tl.constexpr):
    """The orthogonal Walsh-Hadamard transform of each row of f32 [ROWS, 128], added up in the order of `hadamard`."""
    for _ in tl.static_range(7):
        # Sums and differences of neighbours; the bit that told them apart becomes the highest of their place, so that
        # after seven steps each channel is back where it was.
        first, second = tl.split(tl.reshape(values, (ROWS, 64, 2)))
        values = tl.reshape(tl.permute(tl.join(first + second, first - second), (0, 2, 1)), (ROWS, 128))
    return values * 0.08838834764831845  # 128**-0.5
