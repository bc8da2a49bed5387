"""What both Hopper kernels do: copy named rows into shared memory, and end a softmax.

Rows have 512 value channels, then 64 of the RoPE part. Copies are of 16 bytes: rows begin at multiples of 16 bytes, and
their strides come as eighths, so that the compiler knows. A row that is not named arrives as zeros.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, mbarrier

from dsa_exec.core.kernels.attention import LN_2 as _LN_2
from dsa_exec.core.kernels.attention import LOG2_E as _LOG2_E

# Newer Tritons renamed these.
_memory = gl.shared_memory_descriptor
read_as = _memory.reinterpret if hasattr(_memory, "reinterpret") else _memory._reinterpret
copy_to_shared = async_copy.async_load if hasattr(async_copy, "async_load") else async_copy.async_copy_global_to_shared
barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier

LOG2_E = gl.constexpr(_LOG2_E.value)
LN_2 = gl.constexpr(_LN_2.value)
KEYS = gl.constexpr(64)  # rows of a tile
VALUES = gl.constexpr(512)
ROPE = gl.constexpr(64)


@gluon.jit
def row_pointers(base, row, exists, stride_eighths):
    """Pointers [n, 1] to rows, to row 0 for those that do not exist."""
    return base + (gl.where(exists, row, 0).to(gl.int64) * stride_eighths * 8)[:, None]


@gluon.jit
def not_known(number):
    """The number, which the compiler takes for one that it cannot know.

    Where a loop reads shared memory at known addresses, all that is made of them is worked out before the loop, and
    fills the registers.
    """
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def finite(top):
    """What to subtract from scores: 0 where there is none yet, for -inf minus -inf would be NaN."""
    return gl.where(top == float("-inf"), 0.0, top)


@gluon.jit
def end_softmax(top, total, sink, head, heads, HAS_SINK: gl.constexpr):
    """The factor that turns sums into outputs, and the natural log-sum-exp without the sink: `finish_softmax`."""
    nothing = total == 0.0
    some = gl.where(nothing, 1.0, total)
    denominator = some
    if HAS_SINK:
        sinks = gl.load(sink + head, mask=head < heads, other=float("-inf"))
        denominator += gl.exp2(sinks * LOG2_E - finite(top))
    factor = gl.where(nothing, 0.0, 1.0 / denominator)
    return factor, gl.where(nothing, float("-inf"), (top + gl.log2(some)) * LN_2)


@gluon.jit
def barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    """Barriers in shared memory, each of so many arrivals."""
    bars = gl.allocate_shared_memory(gl.int64, [COUNT, 1], mbarrier.MBarrierLayout())
    for bar in gl.static_range(COUNT):
        mbarrier.init(bars.index(bar), count=ARRIVALS)
    return bars
