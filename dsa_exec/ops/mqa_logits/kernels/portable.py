"""Indexer scores in plain Triton: every dtype, head count and number of channels; also under the interpreter.

A program owns a few query rows and a chunk of keys. Tiles that no row of the program sees are not computed. `out` is
written in whole tiles, cut to its rows and columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.indexer_scores import load_part, tile_scores
from dsa_exec.core.triton_support import is_interpreted
from dsa_exec.ops.mqa_logits import Call
from dsa_exec.ops.mqa_logits.launch import PortableLaunch

HIDDEN_COLUMNS = tl.constexpr(256)


@triton.jit
def _hide(out_rows, inside, begin, end):
    """-inf into columns [begin, end) of the rows."""
    for offset in range(begin, end, HIDDEN_COLUMNS):
        column = offset + tl.arange(0, HIDDEN_COLUMNS)
        tl.store(out_rows[:, None] + column[None, :], float("-inf"), mask=inside[:, None] & (column < end)[None, :])


@triton.jit(do_not_specialize=["t", "s", "row_blocks"])
def logits_kernel(
    q,
    keys,
    scales,
    head_weights,
    starts,
    ends,
    out,
    t,
    s,
    q_row_stride,
    q_head_stride,
    key_stride,
    weight_stride,
    out_stride,
    row_blocks,
    chunk_keys,
    HEADS: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    PART: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    SCALED: tl.constexpr,
    CLEAN: tl.constexpr,
    AS: tl.constexpr,
):
    """Logits of ROWS query rows and a chunk of keys, TILE keys a step, PART channels a product."""
    PARTS: tl.constexpr = (CHANNELS + PART - 1) // PART
    program = tl.program_id(0)
    # The last rows first: in a causal prefill they see most.
    first_row = (row_blocks - 1 - program % row_blocks) * ROWS
    begin = program // row_blocks * chunk_keys
    end = tl.minimum(begin + chunk_keys, s)

    row = first_row + tl.arange(0, ROWS)
    out_rows = out + row.to(tl.int64) * out_stride
    start = tl.maximum(tl.load(starts + row, mask=row < t, other=0), 0)
    stop = tl.minimum(tl.load(ends + row, mask=row < t, other=0), s)
    low = tl.maximum(start, begin)
    high = tl.minimum(stop, end)
    high = tl.where(low < high, high, begin)  # of a row that sees nothing here

    column = tl.arange(0, ROWS * PADDED_HEADS)
    column_row = first_row + column // PADDED_HEADS
    head = column % PADDED_HEADS
    real = (column_row < t) & (head < HEADS)
    column_row = column_row.to(tl.int64)
    weights = tl.load(head_weights + column_row * weight_stride + head, mask=real, other=0.0)
    vectors = q + column_row * q_row_stride + head.to(tl.int64) * q_head_stride
    queries = load_part(vectors, real, 0, CHANNELS, PART, 0, AS) if PARTS == 1 else real

    position = begin
    # Each round takes the windows that cover the next tile that is seen at all, to the end of the longest.
    while tl.max(high, axis=0) > position:
        first = tl.min(tl.where(high > position, tl.maximum(low, position), end), axis=0)
        first = begin + (first - begin) // TILE * TILE
        last = tl.max(tl.where(low < first + TILE, high, begin), axis=0)
        if CLEAN:
            _hide(out_rows, row < t, position, first)
        # What is loaded ahead: tiles, or if a product takes several parts of the channels, those.
        for offset in tl.range(first, last, TILE, num_stages=STAGES if PARTS == 1 else 1):
            key = offset + tl.arange(0, TILE)
            key_rows = keys + key.to(tl.int64) * key_stride
            scores = tile_scores(
                key_rows, key < s, queries, vectors, real, weights, head, HEADS, PADDED_HEADS, CHANNELS, ROWS, PART,
                TILE, 0, STAGES, AS,
            )  # fmt: skip
            if SCALED:
                scores *= tl.load(scales + key, mask=key < s, other=0.0)[:, None]
            if CLEAN:
                seen = (key[:, None] >= start[None, :]) & (key[:, None] < stop[None, :])
                scores = tl.where(seen, scores, float("-inf"))
            tl.store(out_rows[None, :] + key[:, None], scores, mask=(row < t)[None, :] & (key < s)[:, None])
        position = first + tl.cdiv(last - first, TILE) * TILE
    if CLEAN:
        _hide(out_rows, row < t, position, end)


def write_logits(call: Call, out: torch.Tensor, launch: PortableLaunch) -> None:
    """Launch the kernel for a call that has rows and keys; `out` is f32 [t, s], rows as far apart as wanted."""
    t, heads, channels = call.q.shape
    s = call.keys.shape[0]
    padded_heads = triton.next_power_of_2(heads)
    rows = max(launch.columns // padded_heads, 1)
    row_blocks = triton.cdiv(t, rows)
    logits_kernel[(row_blocks * triton.cdiv(s, launch.chunk_keys),)](
        call.q,
        call.keys,
        call.scales,
        call.head_weights,
        call.starts,
        call.ends,
        out,
        t,
        s,
        call.q.stride(0),
        call.q.stride(1),
        call.keys.stride(0),
        call.head_weights.stride(0),
        out.stride(0),
        row_blocks,
        launch.chunk_keys,
        HEADS=heads,
        PADDED_HEADS=padded_heads,
        CHANNELS=channels,
        ROWS=rows,
        PART=launch.channels,
        TILE=launch.tile_keys,
        STAGES=launch.stages,
        SCALED=call.scales is not None,
        CLEAN=call.clean,
        AS="f32" if is_interpreted() else "same",
        num_warps=launch.warps,
        enable_fp_fusion=True,
    )
