"""The shared memory of the cluster kernel, and what blocks and warps do with it, in inline PTX.

Gluon has no atomics on shared memory, cannot reach that of the cluster's other blocks, and cannot scan in a kernel of
several blocks a program. So all blocks of a cluster run the same program on tensors that the compiler takes to be the
same in each, and what differs goes through these functions. Each takes and gives one int32 a thread (or a register of
each element); addresses are offsets into one array.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

# What lies where, in bytes. For each of the three digits there are counters of their own, cleared once at the start.
COUNTS = gl.constexpr(0)  # u16 [3, 4096]: this block's keys by digit, two counters a word
PICKED = gl.constexpr(24576)  # i32 [4096]: the columns that this block picks, in order
COARSE = gl.constexpr(40960)  # u32 [3, 64]: this block's keys by 64 digits
COARSE_SUMS = gl.constexpr(41728)  # u32 [3, 64]: the same over all blocks
FINE_SUMS = gl.constexpr(42496)  # u32 [3, 64]: by digit, over all blocks, of the 64 digits that matter
BEFORE = gl.constexpr(43264)  # u32 [4]: keys above the k-th in the blocks before this one; equal to it by digit 1, 2, 3
WARPS = gl.constexpr(43280)  # u32 [32]: one number of each warp
DECLARE = gl.constexpr(".shared .align 16 .b8 topk_memory[43408]; mov.u32 $0, 0;")
CLEARED_WORDS = gl.constexpr(6144)  # COUNTS
CLEARED_LATER = gl.constexpr(580)  # COARSE to BEFORE, behind PICKED, which needs no clearing

_AT = "{ .reg .u32 a, b; .reg .pred p; mov.u32 a, topk_memory; add.u32 a, a, $1; "
LOAD = gl.constexpr(_AT + "ld.shared.u32 $0, [a]; }")
STORE = gl.constexpr(_AT + "setp.ne.u32 p, $3, 0; @p st.shared.u32 [a], $2; mov.u32 $0, 0; }")
ADD = gl.constexpr(_AT + "setp.ne.u32 p, $2, 0; @p red.shared.add.u32 [a], $2; mov.u32 $0, 0; }")
LOAD_OF_BLOCK = gl.constexpr(
    _AT + "setp.ne.u32 p, $3, 0; mapa.shared::cluster.u32 b, a, $2; mov.u32 $0, 0; @p ld.shared::cluster.u32 $0, [b]; }"
)
ADD_WARP = gl.constexpr(
    "{ .reg .u32 a, b, l; .reg .pred p; redux.sync.add.s32 b, $2, 0xffffffff; mov.u32 a, topk_memory; "
    "add.u32 a, a, $1; mov.u32 l, %laneid; setp.eq.u32 p, l, 0; setp.ne.and.u32 p, b, 0, p; "
    "@p red.shared.add.u32 [a], b; mov.u32 $0, 0; }"
)
# The words of 64 digits, one a lane: their sum goes to a coarse counter.
SUM_DIGITS = gl.constexpr(
    "{ .reg .u32 a, b, l; .reg .pred p; mov.u32 a, topk_memory; add.u32 a, a, $1; ld.shared.u32 b, [a]; "
    "and.b32 l, b, 65535; shr.u32 b, b, 16; add.u32 b, b, l; redux.sync.add.s32 b, b, 0xffffffff; "
    "mov.u32 a, topk_memory; add.u32 a, a, $2; mov.u32 l, %laneid; setp.eq.u32 p, l, 0; "
    "@p st.shared.u32 [a], b; mov.u32 $0, 0; }"
)
_PREFIX_SUM = "".join(f"shfl.sync.up.b32 t|p, i, {d}, 0, 0xffffffff; @p add.u32 i, i, t; " for d in (1, 2, 4, 8, 16))
SCAN_WARP = gl.constexpr("{ .reg .u32 t, i; .reg .pred p; mov.u32 i, $1; " + _PREFIX_SUM + "mov.u32 $0, i; }")
LAST_LANE = gl.constexpr("shfl.sync.idx.b32 $0, $1, 31, 31, 0xffffffff;")
# $2 is the warp's number and $3 how many warps there are: $0 the sum up to this warp, $1 the sum of all. One barrier.
SCAN_WARPS = gl.constexpr(
    "{ .reg .u32 t, i, l, w, a; .reg .pred p; mov.u32 l, %laneid; mov.u32 w, %tid.x; shr.u32 w, w, 5; "
    "mov.u32 a, topk_memory; add.u32 a, a, 43280; mad.lo.u32 t, w, 4, a; setp.eq.u32 p, l, 0; "
    "@p st.shared.u32 [t], $2; bar.sync 0; mad.lo.u32 t, l, 4, a; setp.lt.u32 p, l, $3; mov.u32 i, 0; "
    "@p ld.shared.u32 i, [t]; "
    + _PREFIX_SUM
    + "shfl.sync.idx.b32 $0, i, w, 31, 0xffffffff; shfl.sync.idx.b32 $1, i, 31, 31, 0xffffffff; }"
)
# Of 64 counters at $3, lane l holds 63 - 2l and 62 - 2l. $0 is the highest counter with which at least $4 are counted
# from the top, $1 how many are counted above it, $2 how many it has. Every warp finds it by itself.
FIND = gl.constexpr(
    "{ .reg .u32 a, l, s, t, i, x, y; .reg .pred p, q; mov.u32 a, topk_memory; add.u32 a, a, $3; mov.u32 l, %laneid; "
    "shl.b32 t, l, 3; sub.u32 a, a, t; ld.shared.v2.u32 {x, y}, [a + 248]; add.u32 i, x, y; mov.u32 s, i; "
    + _PREFIX_SUM
    + "sub.u32 s, i, s; setp.lt.u32 p, s, $4; setp.ge.and.u32 p, i, $4, p; add.u32 t, s, y; setp.lt.u32 q, t, $4; "
    "@q mov.u32 s, t; @q mov.u32 y, x; shl.b32 l, l, 1; sub.u32 l, 63, l; @q sub.u32 l, l, 1; "
    "vote.sync.ballot.b32 t, p, 0xffffffff; bfind.u32 t, t; shfl.sync.idx.b32 $0, l, t, 31, 0xffffffff; "
    "shfl.sync.idx.b32 $1, s, t, 31, 0xffffffff; shfl.sync.idx.b32 $2, y, t, 31, 0xffffffff; }"
)
# If $1 - $2 <= $3, counts digit ($1 >> $4) & $5 in the counters at $6. A branch is cheaper than a predicated atomic.
COUNT = gl.constexpr(
    "{ .reg .u32 t, u, a; .reg .pred p; sub.u32 t, $1, $2; setp.le.u32 p, t, $3; @!p bra SKIP; shr.u32 u, $1, $4; "
    "and.b32 u, u, $5; and.b32 t, u, 1; mad.lo.u32 t, t, 65535, 1; shr.u32 u, u, 1; shl.b32 u, u, 2; "
    "mov.u32 a, topk_memory; add.u32 a, a, u; add.u32 a, a, $6; red.shared.add.u32 [a], t; SKIP: mov.u32 $0, 0; }"
)
# $1 is 1 for a key above the k-th, 65536 for one that is equal to it; $2 how many of both came before in this block; of
# the equal ones the first $3 are picked. Writes $4 to its place in PICKED.
PICK = gl.constexpr(
    "{ .reg .u32 e, n, a; .reg .pred p, q; setp.eq.u32 p, $1, 0; @p bra SKIP; shr.u32 e, $2, 16; "
    "setp.ne.u32 p, $1, 1; setp.ge.and.u32 p, e, $3, p; @p bra SKIP; min.u32 e, e, $3; and.b32 n, $2, 65535; "
    "add.u32 n, n, e; mov.u32 a, topk_memory; add.u32 a, a, 24576; mad.lo.u32 a, n, 4, a; st.shared.u32 [a], $4; "
    "SKIP: mov.u32 $0, 0; }"
)
# The compiler would let one block of the cluster store for all.
WRITE = gl.constexpr(
    "{ .reg .pred p; .reg .u64 a; setp.ne.u32 p, $4, 0; mad.wide.u32 a, $2, 4, $1; @p st.global.u32 [a], $3; "
    "mov.u32 $0, 0; }"
)
SYNC_BLOCK = gl.constexpr("bar.sync 0; mov.u32 $0, 0;")
# What a block has written comes before its barrier, and one warp's fence behind that orders it for the whole cluster:
# fences are cumulative. An arrival that releases would be a fence in every warp, which takes twice as long.
SYNC_CLUSTER = gl.constexpr(
    "{ .reg .u32 t; .reg .pred p; mov.u32 t, %tid.x; setp.lt.u32 p, t, 32; bar.sync 0; @p fence.acq_rel.cluster; "
    "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned; mov.u32 $0, 0; }"
)
LEAVE_CLUSTER = gl.constexpr("barrier.cluster.arrive.relaxed.aligned; mov.u32 $0, 0;")
AWAIT_CLUSTER = gl.constexpr("barrier.cluster.wait.aligned; mov.u32 $0, 0;")
RANK = gl.constexpr("mov.u32 $0, %cluster_ctarank;")
AWAIT_KERNEL_BEFORE = gl.constexpr("griddepcontrol.wait; mov.u32 $0, 0;")


@gluon.jit
def ptx(code: gl.constexpr, constraints: gl.constexpr, args):
    """Run a line of the above; gives $0."""
    return gl.inline_asm_elementwise(code, constraints, args, dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def sync_cluster(BLOCKS: gl.constexpr):
    """A barrier of all threads of the cluster, behind which all see what any of them wrote into shared memory."""
    if BLOCKS == 1:
        ptx(SYNC_BLOCK, "=r", [])
    else:
        ptx(SYNC_CLUSTER, "=r", [])


@gluon.jit
def load_of_block(offset, block, wanted, BLOCKS: gl.constexpr):
    """A word of a block's shared memory; 0 where `wanted` is 0. The offset is within it all the same."""
    if BLOCKS == 1:
        return gl.where(wanted != 0, ptx(LOAD, "=&r,r", [offset]), 0)
    return ptx(LOAD_OF_BLOCK, "=&r,r,r,r", [offset, block, wanted])


@gluon.jit
def find(offset, wanted):
    """Of the 64 counters at `offset`, the highest with which at least `wanted` are counted from the top.

    Returns:
        Its number, what is counted above it, and its count.
    """
    return gl.inline_asm_elementwise(
        FIND, "=&r,=&r,=&r,r,r", [offset, wanted], dtype=(gl.int32, gl.int32, gl.int32), is_pure=False, pack=1
    )


@gluon.jit
def scan_warps(of_warp, WARPS_OF_BLOCK: gl.constexpr):
    """Prefix sum, inclusive, of one number a warp, and the sum of all. Holds a barrier of the block."""
    return gl.inline_asm_elementwise(
        SCAN_WARPS,
        "=&r,=&r,r,r",
        [of_warp, of_warp * 0 + WARPS_OF_BLOCK],
        dtype=(gl.int32, gl.int32),
        is_pure=False,
        pack=1,
    )
