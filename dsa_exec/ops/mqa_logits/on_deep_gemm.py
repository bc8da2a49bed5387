"""`mqa_logits` by deep_gemm: e4m3 keys with f32 scales, both generations of its interface.

It is given windows within the keys, whatever the call's are, and what it leaves undefined is settled after it. It
writes into a tensor of its own. In the first generation that is the result where no `out` is given. Else, and in the
second, whose rows begin with their first visible key, its logits are put to their columns, some rows at a time.
"""

from __future__ import annotations

import torch

from dsa_exec.core import deep_gemm_records as records
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.head_padding import pad_heads
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.vendors import Library
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.row_chunks import row_chunks, rows_that_fit
from dsa_exec.ops.mqa_logits import Call

SCRATCH_BYTES = 256 * 2**20
"""What it may hold beside the result; its smallest chunk takes what it takes."""

CHANNELS = (32, 64, 128)

BLOCK_ROWS = 8
"""A multiple of the rows that its kernels work through at a time, of 16 heads or more."""

BLOCK_HEADS = 128
"""Rows times heads that its kernels work through at a time: it rounds rows up to that."""

BLOCK_KEYS = 256
"""It rounds logits of a row up to that, and where they begin with key 0, adds as many before."""

MOST = 2**31 - 2**10
"""Keys, and rows times heads, are numbered in int32; keys are rounded up to whole blocks."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    rows, heads, channels = call.q.shape
    sentence = records.refuses_hardware(hw) or refuses_gradients(call) or records.refuses_heads(heads, hw.arch)
    if sentence is not None:
        return sentence
    if call.q.dtype is not E4M3:
        return f"q is {str(call.q.dtype).removeprefix('torch.')}, deep_gemm takes float8_e4m3fn"
    if channels not in CHANNELS:
        return f"{channels} channels, deep_gemm takes {', '.join(map(str, CHANNELS))}"
    if call.keys.shape[0] > MOST:
        return f"{call.keys.shape[0]} keys, deep_gemm numbers up to {MOST} in int32"
    if rows * (records.padded_heads(heads, hw.arch) or heads) > MOST:
        return f"{rows} rows of {heads} heads, deep_gemm numbers up to {MOST} of both together in int32"
    return _refuses_addresses(call)


def _refuses_addresses(call: Call) -> str | None:
    if not call.keys.is_contiguous():
        return f"keys have rows {call.keys.stride(0)} bytes apart, deep_gemm takes contiguous ones"
    for name, tensor in (("keys", call.keys), ("scales", call.scales)):
        if tensor is not None and (past := tensor.data_ptr() % 16):
            return f"{name} begin {past} bytes past a multiple of 16, the copy engine takes multiples"
    return None


def _declines(call: Call, hw: Capabilities) -> str | None:
    return records.declines_hardware(hw, call.q.shape[1])


def _adapts(call: Call, hw: Capabilities) -> str | None:
    return records.adapts_heads(call.q.shape[1], hw.arch)


def _run(call: Call) -> torch.Tensor:
    rows, s, out = call.q.shape[0], call.keys.shape[0], call.out
    if rows == 0 or s == 0:
        return call.q.new_empty(rows, s, dtype=torch.float32) if out is None else out
    from dsa_exec.ops.mqa_logits.kernels.settle import settle

    hw = capabilities(call.q.device)
    library = hw.library("deep_gemm")
    shifted = library.generation > 1
    with torch.cuda.device_of(call.q):
        # A window that ends before it starts would have the kernel count keys below zero.
        starts = call.starts.clamp(0, s)
        ends = torch.maximum(call.ends.clamp(max=s), starts)
        if out is None and not shifted:
            return settle(
                _logits(call, library, hw.arch, slice(0, rows), starts, ends), starts, ends, None, clean=call.clean
            )
        out = call.q.new_empty(rows, s, dtype=torch.float32) if out is None else out
        for part in row_chunks(rows, _rows_at_once(s)):
            bounds = starts[part], ends[part]
            # Not named: the logits of a part are gone before there are those of the next.
            settle(
                _logits(call, library, hw.arch, part, *bounds), *bounds, out[part], clean=call.clean, shifted=shifted
            )
    return out


def _rows_at_once(s: int) -> int:
    """How many rows the scratch holds, beside `out`."""
    return max(rows_that_fit((s + 512) * 4, SCRATCH_BYTES) // BLOCK_ROWS * BLOCK_ROWS, BLOCK_ROWS)


def _footprint(call: Call, hw: Capabilities) -> Footprint:
    (_, given, d), s = call.q.shape, call.keys.shape[0]
    heads = records.padded_heads(given, hw.arch) or given
    bounds = 3 * 4  # windows that lie within the keys
    # Padded queries and head weights lie in memory for a power of two of rows; others may be copied.
    queries = heads * (d + 4) * (1 if heads == given else 2)
    multiple = -(-BLOCK_HEADS // heads)
    if hw.library("deep_gemm").generation > 1:
        row, at_once = -(-s // BLOCK_KEYS) * BLOCK_KEYS * 4, _rows_at_once(s)
        return Footprint((multiple - 1) * row, bounds, streamed=((row + queries, at_once),))
    own = -(-(s + BLOCK_KEYS) // BLOCK_KEYS) * BLOCK_KEYS * 4
    return Footprint(row_bytes=bounds + queries, own_row_bytes=own, own_row_multiple=multiple)


def _logits(
    call: Call, library: Library, arch: str, part: slice, starts: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    """What deep_gemm leaves for some rows: f32 [rows, s], from key 0 on or from each row's first visible key."""
    heads = records.padded_heads(call.q.shape[1], arch) or call.q.shape[1]
    q = pad_heads(call.q[part], heads)
    weights = pad_heads(call.head_weights[part, :, None], heads)[:, :, 0]
    rest = (call.keys, call.scales), weights, starts, ends
    if library.generation == 1:
        logits: torch.Tensor = library.module.fp8_mqa_logits(q, *rest, clean_logits=False)
    else:
        logits = library.module.fp8_fp4_mqa_logits((q, None), *rest, call.keys.shape[0])
    return logits


BACKEND = Backend("deep_gemm", _run, _refuses, _declines, rank=15, adapts=_adapts, footprint=_footprint)
