"""The gathering role: picked tokens of the FP8 cache come from memory, are widened, and become a tile to multiply.

A tile is 64 tokens: 512 latent channels of 16 bits, beside them the 64 bf16 channels of the RoPE part. A gathering
warpgroup keeps the loads of its next tile in registers while it waits for room, so that memory is never idle for long.

Latents become float16, which holds e4m3 exactly. Either they stay codes, and `products.py` applies their scales, or
they are multiplied by their scale here. That product is rounded eight times finer than bfloat16 would, and is infinite
from 65520 on, which takes a scale above 146. With BF16 it is bfloat16: any scale that f32 has, 2^-9 of error in each.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

# Newer Tritons renamed both.
barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier
_PUBLIC = gl.constexpr(hasattr(gl.shared_memory_descriptor, "reinterpret"))

TOKENS = gl.constexpr(64)
"""Of a tile: the rows of a matrix product."""

TOKEN_WORDS = gl.constexpr(164)
LATENT_WORDS = gl.constexpr(128)
ROPE_WORD = gl.constexpr(132)
"""Where in a token, in words of four bytes, the RoPE part begins. Loads are of words: a tensor of bytes that is carried
around a loop takes a register a byte."""


# How four warps hold codes: token, group of 128 channels, word of four codes. A load reads 128 bytes of each of four
# tokens. Tokens alternate within eight lanes so that the 32 bytes that a lane stores later fall into different banks of
# the swizzled tile.
CODES = gl.constexpr(
    gl.DistributedLinearLayout(
        reg_bases=[[0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 2, 0], [16, 0, 0], [32, 0, 0]],
        lane_bases=[[0, 0, 4], [0, 0, 8], [1, 0, 0], [0, 0, 16], [2, 0, 0]],
        warp_bases=[[4, 0, 0], [8, 0, 0]],
        block_bases=[],
        shape=[64, 4, 32],
    )
)

# How they hold RoPE parts, token and word of two channels: each warp those of its tokens.
ROPE = gl.constexpr(
    gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [16, 0], [32, 0]],
        lane_bases=[[0, 4], [0, 8], [1, 0], [0, 16], [2, 0]],
        warp_bases=[[4, 0], [8, 0]],
        block_bases=[],
        shape=[64, 32],
    )
)

# How they hold scales that they only pass on, token and group: two a thread.
PASSED_SCALES = gl.constexpr(
    gl.DistributedLinearLayout(
        reg_bases=[[0, 1]],
        lane_bases=[[0, 2], [1, 0], [2, 0], [4, 0], [8, 0]],
        warp_bases=[[16, 0], [32, 0]],
        block_bases=[],
        shape=[64, 4],
    )
)


@gluon.jit
def seen_as(memory, DTYPE: gl.constexpr, SHAPE: gl.constexpr, LAYOUT: gl.constexpr):
    """The same bytes of shared memory as another dtype."""
    if _PUBLIC:
        return memory.reinterpret(DTYPE, SHAPE, LAYOUT)
    else:  # noqa: RET505 - a statement of its own would be compiled too
        return memory._reinterpret(DTYPE, SHAPE, LAYOUT)


AWAIT_KERNEL_BEFORE = gl.constexpr("griddepcontrol.wait; mov.u32 $0, 0;")
LET_NEXT_KERNEL_START = gl.constexpr("griddepcontrol.launch_dependents; mov.u32 $0, 0;")


@gluon.jit
def ptx(code: gl.constexpr, constraints: gl.constexpr, args):
    """Run a line of the above; gives $0."""
    return gl.inline_asm_elementwise(code, constraints, args, dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def load_tile(cache, slots, scale_slots, slot_count):
    """Issue the loads of a tile; slots that name no token of the cache give zeros and are not addressed.

    Args:
        slots, scale_slots: the same slots, as codes and as scales are to be held.

    Returns:
        Codes [64, 4, 32], scales [64, 4] and RoPE parts [64, 32], as words.
    """
    named = (slots >= 0) & (slots < slot_count)
    base = gl.where(named, slots, 0).to(gl.int64) * TOKEN_WORDS
    group = gl.arange(0, 4, layout=gl.SliceLayout(0, gl.SliceLayout(2, CODES)))
    word = gl.arange(0, 32, layout=gl.SliceLayout(0, gl.SliceLayout(1, CODES)))
    at_word = (cache + base[:, None] + 32 * group[None, :])[:, :, None] + word[None, None, :]
    codes = gl.load(at_word, mask=named[:, None][:, :, None], other=0)
    scale_named = (scale_slots >= 0) & (scale_slots < slot_count)
    scale_base = gl.where(scale_named, scale_slots, 0).to(gl.int64) * TOKEN_WORDS
    scale_word = LATENT_WORDS + gl.arange(0, 4, layout=gl.SliceLayout(0, scale_slots.type.layout.parent))
    scales = gl.load(cache + scale_base[:, None] + scale_word[None, :], mask=scale_named[:, None], other=0)
    rope_word = ROPE_WORD + gl.arange(0, 32, layout=gl.SliceLayout(0, ROPE))
    rope_named = gl.convert_layout(named, gl.SliceLayout(1, ROPE))
    rope_base = gl.convert_layout(base, gl.SliceLayout(1, ROPE))
    rope = gl.load(cache + rope_base[:, None] + rope_word[None, :], mask=rope_named[:, None], other=0)
    return codes, scales, rope


@gluon.jit
def widen(codes):
    """Codes [64, 4, 32] as words of four to words of two float16 [64, 256], exactly."""
    low, high = gl.inline_asm_elementwise(
        """{
        .reg .b16 p, q;
        mov.b32 {p, q}, $2;
        cvt.rn.f16x2.e4m3x2 $0, p; cvt.rn.f16x2.e4m3x2 $1, q;
        }""",
        "=&r,=&r,r",
        [codes],
        dtype=(gl.int32, gl.int32),
        is_pure=True,
        pack=1,
    )
    return gl.reshape(gl.join(low, high), [TOKENS, 256])


@gluon.jit
def dequantise(codes, scales, BF16: gl.constexpr):
    """Codes [64, 4, 32] and scales [64, 4], both as words, to words of two latents [64, 256].

    Scales of small latents, from 2^-22 on, have too few bits in float16: they are taken times 2^8. The codes take the
    2^-8: shifted into the place of float16, whose exponent counts from 8 less, they have it. (A NaN there is 480, but a
    quantiser that meets one has made the scale NaN.) Compiled, this holds fewer registers than a conversion would.
    """
    if BF16:
        spread, words = gl.broadcast(scales[:, :, None], codes)
        low, high = gl.inline_asm_elementwise(
            """{
            .reg .b16 p, q, h<4>; .reg .b32 x, y; .reg .f32 s, f<4>;
            mov.b32 {p, q}, $2; mov.b32 s, $3;
            cvt.rn.f16x2.e4m3x2 x, p; cvt.rn.f16x2.e4m3x2 y, q;
            mov.b32 {h0, h1}, x; mov.b32 {h2, h3}, y;
            cvt.f32.f16 f0, h0; cvt.f32.f16 f1, h1; cvt.f32.f16 f2, h2; cvt.f32.f16 f3, h3;
            mul.rn.f32 f0, f0, s; mul.rn.f32 f1, f1, s; mul.rn.f32 f2, f2, s; mul.rn.f32 f3, f3, s;
            cvt.rn.bf16x2.f32 $0, f1, f0; cvt.rn.bf16x2.f32 $1, f3, f2;
            }""",
            "=&r,=&r,r,r",
            [words, spread],
            dtype=(gl.int32, gl.int32),
            is_pure=True,
            pack=1,
        )
    else:
        pairs = gl.inline_asm_elementwise(
            "{ .reg .f32 s; mov.b32 s, $1; mul.rn.f32 s, s, 0f43800000; cvt.rn.f16x2.f32 $0, s, s; }",
            "=r,r",
            [scales],
            dtype=gl.int32,
            is_pure=True,
            pack=1,
        )
        spread, words = gl.broadcast(pairs[:, :, None], codes)
        low, high = gl.inline_asm_elementwise(
            """{
            .reg .b32 x, y, a, b;
            prmt.b32 x, $2, 0, 0x1404; prmt.b32 y, $2, 0, 0x3424;
            and.b32 a, x, 0x80008000; and.b32 b, y, 0x80008000;
            shr.u32 x, x, 1; shr.u32 y, y, 1;
            lop3.b32 x, x, 0x3f803f80, a, 0xea; lop3.b32 y, y, 0x3f803f80, b, 0xea;
            mul.rn.f16x2 $0, x, $3; mul.rn.f16x2 $1, y, $3;
            }""",
            "=&r,=&r,r,r",
            [words, spread],
            dtype=(gl.int32, gl.int32),
            is_pure=True,
            pack=1,
        )
    return gl.reshape(gl.join(low, high), [TOKENS, 256])


@gluon.jit
def gather_tiles(
    cache,
    slots,
    begin,
    end,
    slot_count,
    latent_words,
    rope_words,
    scale_words,
    full,
    empty,
    FIRST: gl.constexpr,
    PRODUCERS: gl.constexpr,
    BUFFERS: gl.constexpr,
    RAW: gl.constexpr,
    BF16: gl.constexpr,
    OVERLAP: gl.constexpr,
):
    """Every PRODUCERS-th tile of slots [begin, end), from the FIRST one on, into the ring of buffers."""
    STEP: gl.constexpr = TOKENS * PRODUCERS
    SCALES: gl.constexpr = PASSED_SCALES if RAW else gl.SliceLayout(2, CODES)
    place = gl.arange(0, TOKENS, layout=gl.SliceLayout(1, gl.SliceLayout(2, CODES)))
    scale_place = gl.arange(0, TOKENS, layout=gl.SliceLayout(1, SCALES))
    at = begin + FIRST * TOKENS
    picked = gl.load(slots + at + place, mask=at + place < end, other=-1)
    scale_picked = gl.load(slots + at + scale_place, mask=at + scale_place < end, other=-1)
    codes, scales, rope = load_tile(cache, picked, scale_picked, slot_count)
    at += STEP
    picked = gl.load(slots + at + place, mask=at + place < end, other=-1)
    scale_picked = gl.load(slots + at + scale_place, mask=at + scale_place < end, other=-1)
    tile = FIRST
    for start in range(begin + FIRST * TOKENS, end, STEP):
        buffer = tile % BUFFERS
        mbarrier.wait(empty.index(buffer), ((tile // BUFFERS) & 1) ^ 1)
        if RAW:
            latent_words.index(buffer).store(widen(codes))
            scale_words.index(buffer).store(scales)
        else:
            latent_words.index(buffer).store(dequantise(codes, scales, BF16))
        rope_words.index(buffer).store(rope)
        fence_async_shared()
        barrier()
        mbarrier.arrive(full.index(buffer))
        codes, scales, rope = load_tile(cache, picked, scale_picked, slot_count)
        at = start + 2 * STEP
        picked = gl.load(slots + at + place, mask=at + place < end, other=-1)
        scale_picked = gl.load(slots + at + scale_place, mask=at + scale_place < end, other=-1)
        tile += PRODUCERS
    if OVERLAP and FIRST == 0:
        # What is left takes about as long as it takes to launch a kernel.
        ptx(LET_NEXT_KERNEL_START, "=r", [])
