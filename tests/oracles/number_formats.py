"""e4m3 from its bits: sign, four bits of exponent (bias 7), three of mantissa; 0x7F and 0xFF are NaN; no infinity."""

from __future__ import annotations

import bisect
import math
import struct


def decode(code: int) -> float:
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = (code >> 3) & 0xF, code & 0x7
    if exponent == 0xF and mantissa == 0x7:
        return math.nan
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


MAGNITUDES = [decode(code) for code in range(0x7F)]


def encode(value: float) -> int:
    """The code nearest to a value within ±448; of two as near, the one with an even mantissa."""
    sign = 0x80 if math.copysign(1.0, value) < 0 else 0
    magnitude = abs(value)
    above = bisect.bisect_left(MAGNITUDES, magnitude)
    if above == len(MAGNITUDES):
        return sign | 0x7E
    if above == 0 or MAGNITUDES[above] == magnitude:
        return sign | above
    below = above - 1
    low, high = magnitude - MAGNITUDES[below], MAGNITUDES[above] - magnitude
    nearest = below if low < high or (low == high and below % 2 == 0) else above
    return sign | nearest


def f32(value: float) -> float:
    """A value rounded to f32."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def scale_of(values: list[float], *, pow2: bool = False) -> float:
    """amax / 448 with amax at least 1e-4, in f32, or the least power of two not below it."""
    scale = f32(max(max(map(abs, values), default=0.0), f32(1e-4)) / 448.0)
    if not pow2:
        return scale
    power = 2.0**-149
    while power < scale:
        power *= 2
    return power


def quantise(values: list[float], *, pow2: bool = False) -> tuple[list[int], float]:
    """The codes of a block of values, and their scale."""
    scale = scale_of(values, pow2=pow2)
    return [encode(min(max(f32(value / scale), -448.0), 448.0)) for value in values], scale


def rotate(values: list[float]) -> list[float]:
    """The orthogonal Hadamard transform: the sign of element i, j is the parity of the bits that i and j share."""
    size = len(values)
    return [
        sum(value * (-1) ** (row & column).bit_count() for column, value in enumerate(values)) / math.sqrt(size)
        for row in range(size)
    ]


def bf16_bytes(value: float) -> bytes:
    """The two bytes of the bf16 nearest to a value, ties to even."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return struct.pack("<H", rounded >> 16)


def bf16_value(raw: bytes) -> float:
    return struct.unpack("<f", b"\0\0" + raw)[0]


def f32_bytes(value: float) -> bytes:
    return struct.pack("<f", value)


def f32_value(raw: bytes) -> float:
    return struct.unpack("<f", raw)[0]
