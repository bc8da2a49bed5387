"""What a matrix product takes of stored numbers, in Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def operand(stored, AS: tl.constexpr):
    """What the matrix units take: as it is stored, or f16 or f32. Codes of e4m3 in uint8 keep their values, and NaN."""
    if stored.dtype == tl.uint8:
        bits = stored.to(tl.uint16)
        half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)  # the value over 256: f16 has 8 more of bias
        value = half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
        value = tl.where((bits & 0x7F) == 0x7F, float("nan"), value)
        taken = value if AS == "f32" else value.to(tl.float16)
    else:
        taken = stored.to(tl.float32) if AS == "f32" else stored
    return taken
