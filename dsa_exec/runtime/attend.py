"""Attention of a layer in the way that was decided for its batch (`attention_path.py`), by the ops that it takes.

Selections of a prefill are positions in the row's request; those of the other phases are slots. Which of the two an op
takes, and whether it reads the cache or what was gathered from it, is settled here and nowhere else: no op is handed
bytes of another format than its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TypedDict

import torch

from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.checks import FLOAT_DTYPES, INDEX_DTYPES, Arguments
from dsa_exec.core.errors import DtypeError, LayoutError
from dsa_exec.core.hardware import is_capturing
from dsa_exec.dispatch.chunked import run_in_chunks
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.views import SlotMap
from dsa_exec.memory.row_chunks import row_chunks, rows_per_chunk
from dsa_exec.ops.dense_mla_prefill import dense_mla_prefill
from dsa_exec.ops.kv_gather import kv_gather
from dsa_exec.ops.sparse_mla_decode import sparse_mla_decode
from dsa_exec.ops.sparse_mla_prefill import sparse_mla_prefill
from dsa_exec.runtime.attention_path import AttentionPath
from dsa_exec.runtime.query_rows import QueryRows

Attended = tuple[torch.Tensor, torch.Tensor]


class _Options(TypedDict):
    """What every op takes."""

    sm_scale: float
    attn_sink: torch.Tensor | None


GATHERED_BYTES = 256 * 2**20
"""How much of an FP8 cache is gathered at a time for selected slots, each of which is gathered for every row."""

MAPPED_BYTES = 64 * 2**20
"""How many bytes of int64 positions are mapped to slots at a time."""


def attend(
    path: AttentionPath,
    q: torch.Tensor,
    cache: MlaCache,
    selected: torch.Tensor | None,
    rows: QueryRows | None = None,
    *,
    sm_scale: float,
    attn_sink: torch.Tensor | None = None,
) -> Attended:
    """Multi-head latent attention of each query row.

    Args:
        path: how, as decided for the batch.
        q: float [t, h, latent_dim + rope_dim]: the query absorbed into latent space, then its RoPE part.
        cache: the layer's MLA cache, with the tokens of this pass.
        selected: int32 [t, k], what `index_select` gave: positions in a prefill, else slots; -1 padded. None where the
            path selects nothing.
        rows: the rows of a prefill; not needed in the other phases.
        sm_scale: factor of the scores before the softmax.
        attn_sink: f32 [h]: one more score in each head's denominator, without a value.

    Returns:
        out: [t, h, latent_dim], of q's dtype; zeros where a row attends to nothing.
        lse: f32 [t, h], the natural log of the sum of exponentials without the sink; -inf where it attends to nothing.

    Raises:
        LayoutError: the cache has another format than the path was decided for.
        ArgumentError: an argument that the path needs is missing, or one is given that it does not take; or what the
            ops refuse.
        UnsupportedCall: no backend takes a call.
    """
    _check(path, q, cache, selected, rows)
    options = _Options(sm_scale=sm_scale, attn_sink=attn_sink)
    d_v = cache.layout.latent_dim
    if path.way == "dense":
        assert rows is not None
        kv = kv_gather(cache, rows.page_table, rows.seq_lens, rows.total_tokens, dtype=q.dtype)
        return dense_mla_prefill(q, kv, rows.starts, rows.ends, d_v=d_v, **options)
    assert selected is not None
    if path.way == "fp8_kv" or cache.data.dtype == q.dtype:
        slots = selected if rows is None else slots_of(selected, rows, cache)
        if path.way == "fp8_kv" or _is_too_few(path, q):
            return sparse_mla_decode(q, cache, slots, **options)
        return sparse_mla_prefill(q, cache.data, slots, d_v=d_v, **options)
    if rows is None:
        return _attend_gathered_slots(q, cache, selected, options)
    kv = kv_gather(cache, rows.page_table, rows.seq_lens, rows.total_tokens, dtype=q.dtype)
    among_all = (selected + rows.starts[:, None]).where(selected >= 0, -1)
    return sparse_mla_prefill(q, kv, among_all, d_v=d_v, **options)


def slots_of(positions: torch.Tensor, rows: QueryRows, cache: MlaCache) -> torch.Tensor:
    """The slots of a prefill's selection: int32 [t, k] of positions int32 [t, k]; -1 where there is none."""
    slots = torch.empty_like(positions)

    def map_part(part: slice) -> None:
        pages = SlotMap(rows.page_table, cache.layout.page_tokens, rows.request_of_row[part], cache.slots)
        slots[part] = pages.slots(positions[part])

    _in_chunks(map_part, positions.shape[0], positions.shape[1] * 8, MAPPED_BYTES, positions.device)
    return slots


def _check(
    path: AttentionPath, q: torch.Tensor, cache: MlaCache, selected: torch.Tensor | None, rows: QueryRows | None
) -> None:
    args = Arguments("attend")
    args.kind(path, "path", AttentionPath)
    args.kind(cache, "cache", MlaCache)
    if cache.layout.format != path.format:
        wanted = f"{path.format}, for which {path.way} was decided"
        raise LayoutError("MLA cache", "format", cache.layout.format, wanted)
    if (selected is None) == path.selects:
        came = "is None" if selected is None else "is given"
        raise DtypeError("attend", "selected", came, "what index_select gave, or None on a path that selects nothing")
    if (rows is None) == (path.phase == "prefill"):
        came = "is None" if rows is None else "is given"
        raise DtypeError("attend", "rows", f"{came} in {path.phase}", "QueryRows in a prefill, None in other phases")
    if torch.compiler.is_compiling():
        return  # nodes of the graph check tensors when they run
    args.tensor(q, "q", f"t h {cache.layout.width}", dtype=FLOAT_DTYPES)
    if selected is not None:
        args.tensor(selected, "selected", "t k", dtype=torch.int32)
    if rows is not None:
        args.tensor(rows.starts, "rows.starts", "t", dtype=torch.int32)
        args.tensor(rows.request_of_row, "rows.request_of_row", "t", dtype=INDEX_DTYPES)


def _is_too_few(path: AttentionPath, q: torch.Tensor) -> bool:
    """Whether rows of decode are fewer than multiprocessors, so that splitting what each selects keeps more busy."""
    return path.phase != "prefill" and q.shape[0] < path.multiprocessors


def _attend_gathered_slots(q: torch.Tensor, cache: MlaCache, slots: torch.Tensor, options: _Options) -> Attended:
    """Gather what each row selects, a part of the rows at a time, and attend to it."""
    t, k = slots.shape
    d_v = cache.layout.latent_dim
    tokens = MlaCache(cache.data, _in_pages_of_one(cache.layout))
    out = q.new_empty(t, q.shape[1], d_v)
    lse = q.new_empty(t, q.shape[1], dtype=torch.float32)

    def attend_part(part: slice) -> None:
        chosen = slots[part].flatten()
        count = torch.full((1,), chosen.shape[0], dtype=torch.int32, device=q.device)
        kv = kv_gather(tokens, chosen[None], count, chosen.shape[0], dtype=q.dtype)
        own = torch.arange(chosen.shape[0], dtype=torch.int32, device=q.device)
        own = own.where((chosen >= 0) & (chosen < cache.slots), -1).view_as(slots[part])
        out[part], lse[part] = sparse_mla_prefill(q[part], kv, own, d_v=d_v, **options)

    _in_chunks(attend_part, t, k * cache.layout.width * q.element_size(), GATHERED_BYTES, q.device)
    return out, lse


def _in_chunks(work: Callable[[slice], None], rows: int, row_bytes: int, most_bytes: int, device: torch.device) -> None:
    """Do rows in chunks of so many bytes; fewer at a time where memory runs out."""
    at_once = rows_per_chunk(rows, row_bytes, most_bytes)
    if torch.compiler.is_compiling():  # what is traced cannot run out of memory yet
        for part in row_chunks(rows, at_once):
            work(part)
        return
    capturing = is_capturing(device)
    run_in_chunks("attend", rows, at_once, work, lambda it: it * row_bytes, device=device, capturing=capturing)


def _in_pages_of_one(layout: MlaLayout) -> MlaLayout:
    """The same bytes as pages of one token, so that a page is a slot."""
    if torch.compiler.is_compiling():
        return dataclasses.replace(layout, page_tokens=1)
    return _remembered(layout)


@functools.cache
def _remembered(layout: MlaLayout) -> MlaLayout:
    # The same object every time: decisions are remembered by it.
    return dataclasses.replace(layout, page_tokens=1)
