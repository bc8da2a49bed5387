"""What ranks do in the tests of tensor parallelism: rows of an indexer that all ranks have, and heads that each has."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from dsa_config import settings
from dsa_exec import GatheredKeys, MemoryReading, PagedKeys, index_select, record_calls, sparse_mla_decode
from dsa_exec.caches.samples import random_index_k_cache, random_mla_cache
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.runtime.distributed import index_rows, ranks
from dsa_exec.runtime.distributed.head_split import HeadSplit
from dsa_exec.runtime.distributed.index_rows import index_select_in_group
from dsa_exec.runtime.lengths import ragged_windows

CPU = torch.device("cpu")
PLENTY = MemoryReading(2**40, 2**40)
K = 12
HEADS = 4


def gathered(extended: Sequence[int], before: int = 30, scores: str = "coarse") -> tuple[Any, ...]:
    """Arguments for requests with so many new rows each; scores that tie often, or are all the same."""
    generator = torch.Generator().manual_seed(5)
    extend = torch.tensor(extended, dtype=torch.int32)
    lens = extend + before
    rows, tokens = int(extend.sum()), int(lens.sum())
    starts, ends = ragged_windows(extend, lens, rows=rows)
    q = torch.randint(-2, 3, (rows, HEADS, 64), generator=generator).to(E4M3)
    keys = torch.randint(-1, 2, (tokens, 64), generator=generator).to(E4M3)
    weights = torch.randint(-1, 3, (rows, HEADS), generator=generator).float()
    if scores == "equal":
        weights.zero_()
    return q, weights, GatheredKeys(keys, torch.ones(tokens), starts, ends), K


def paged(b: int, n: int) -> tuple[Any, ...]:
    """Arguments for b requests with n rows each, over keys in a cache."""
    generator = torch.Generator().manual_seed(6)
    cache = random_index_k_cache(generator, IndexKLayout(), 8, CPU)
    table = torch.randint(0, 8, (b, 2), generator=generator, dtype=torch.int32)
    lens = torch.randint(0, 129, (b, n), generator=generator, dtype=torch.int32)
    q = torch.randint(-2, 3, (b, n, HEADS, 128), generator=generator).to(E4M3)
    return q, torch.randn(b * n, HEADS, generator=generator), PagedKeys(cache, table, lens), K


@dataclass(frozen=True)
class Selected:
    """How a selection ended on a rank: its indices, the rows that this rank scored, and in how many chunks."""

    indices: list[list[int]] | None
    scored: list[int]
    chunks: int | None
    error: str = ""
    words: str = ""


def select(rank: int, arguments: tuple[Any, ...], named: Mapping[str, Any], **set_: Any) -> Selected:
    settings.set(**set_)
    with record_calls() as trace:
        try:
            selection = index_select_in_group(*arguments, **{"memory": PLENTY, **named})
        except Exception as error:
            return Selected(None, [], None, type(error).__name__, str(error))
    return Selected(selection.indices.tolist(), [it.rows for it in trace.chunked], selection.chunks)


def alone(arguments: tuple[Any, ...]) -> list[list[int]]:
    """What one process selects."""
    return index_select(*arguments, memory=PLENTY).indices.tolist()


def select_batches(
    rank: int, batches: Sequence[Sequence[int]], scores: str, requests: Sequence[tuple[int, int]]
) -> list[Selected]:
    """One after the other, split: prefills, then decode steps."""
    prefills = [select(rank, gathered(it, scores=scores), {}, tp_index_rows="split") for it in batches]
    return prefills + [select(rank, paged(*it), {}, tp_index_rows="split") for it in requests]


def select_with_little_memory(rank: int, extended: Sequence[int], room: Sequence[int]) -> Selected:
    """Each rank has room for another number of bytes."""
    named = {"memory": MemoryReading(2**40, 5 * room[rank])}
    return select(rank, gathered(extended), named, tp_index_rows="split")


def select_by(rank: int, choices: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[list[int]]:
    """The rows that this rank scores in a prefill of 64 rows and 94 keys, by settings and arguments; then in decode."""
    batches = gathered([64]), paged(6, 1)
    wanted = [alone(it) for it in batches]
    seen = []
    for set_, named in choices:
        selected = [select(rank, it, named, **set_) for it in batches]
        assert [it.indices for it in selected] == wanted, set_
        seen += [it.scored for it in selected]
        settings.reset()
    return seen


def select_in(rank: int, members: list[int], extended: Sequence[int]) -> Selected:
    group = dist.new_group(members)
    return select(rank, gathered(extended), {"group": group}, tp_index_rows="split")


def select_into(rank: int, extended: Sequence[int]) -> tuple[Selected, list[list[int]], list[list[int]]]:
    """Into the left part of wider rows: what is returned, what is there, and what is beside it."""
    wide = torch.full((sum(extended), K + 3), 7, dtype=torch.int32)
    selected = select(rank, gathered(extended), {"out": wide[:, :K]}, tp_index_rows="split")
    return selected, wide[:, :K].tolist(), wide[:, K:].tolist()


def with_bad_rows(rows: Sequence[int]) -> tuple[Any, ...]:
    """A prefill of 32 rows, some of whose windows go beyond the keys."""
    q, weights, keys, k = gathered([32])
    ends = keys.ends.clone()
    ends[list(rows)] = keys.keys.shape[0] + 1
    return q, weights, dataclasses.replace(keys, ends=ends), k


def select_bad_rows(rank: int, rows: Sequence[int]) -> list[Selected]:
    """And afterwards a good one."""
    batches = with_bad_rows(rows), gathered([32])
    return [select(rank, it, {}, tp_index_rows="split") for it in batches]


def select_other_numbers(rank: int) -> list[Selected]:
    """One rank has another k, and then another number of rows."""
    q, weights, keys, _ = gathered([32])
    batches = (q, weights, keys, K - (rank == 1)), gathered([32 + (rank == 1)])
    return [select(rank, it, {}, tp_index_rows="split") for it in batches]


def select_without_memory(rank: int, poor: int) -> Selected:
    """One rank has no memory for a single row."""
    if rank != poor:
        return select(rank, gathered([32]), {}, tp_index_rows="split")
    genuine, index_rows.select_now = index_rows.select_now, _runs_out
    try:
        return select(rank, gathered([32]), {}, tp_index_rows="split")
    finally:
        index_rows.select_now = genuine


def _runs_out(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.05 GiB.")


def select_as_if_captured(rank: int) -> tuple[list[Selected], int, int]:
    """A good and a bad selection while a graph is captured; how often ranks told each other something, and gathered."""
    told, gathers = [], []
    genuine = index_rows.is_capturing, ranks.Ranks.gather_rows
    gather = index_rows.gather_in_place
    index_rows.gather_in_place = lambda *given: (gathers.append(given), gather(*given))
    index_rows.is_capturing = lambda device: True
    ranks.Ranks.gather_rows = lambda self, row: told.append(row)  # type: ignore[method-assign,assignment,return-value]
    try:
        batches = gathered([37]), with_bad_rows(range(32))
        return [select(rank, it, {}, tp_index_rows="split") for it in batches], len(told), len(gathers)
    finally:
        index_rows.is_capturing, ranks.Ranks.gather_rows = genuine  # type: ignore[method-assign]
        index_rows.gather_in_place = gather


def select_compiled(rank: int, members: Sequence[int]) -> list[list[list[int]]]:
    """By one compiled function of gathered keys, with the default group, while it is split and while it is not; by
    another of paged keys, with a group of its own.
    """
    group = dist.new_group(members)
    prefill, (q, weights, keys, k) = gathered([37]), paged(5, 2)
    out = torch.zeros(37, K, dtype=torch.int32)

    def of_gathered(q: torch.Tensor) -> torch.Tensor:
        return index_select_in_group(q, *prefill[1:], memory=PLENTY).indices + 0

    def of_paged(q: torch.Tensor) -> torch.Tensor:
        return index_select_in_group(q, weights, keys, k, group=group, longest_tokens=128).indices

    def into(q: torch.Tensor) -> torch.Tensor:
        return index_select_in_group(q, *prefill[1:], out=out).indices

    compiled = torch.compile(of_gathered, fullgraph=True, backend="aot_eager")
    settings.set(tp_index_rows="split")
    seen = [compiled(prefill[0]), torch.compile(of_paged, fullgraph=True, backend="aot_eager")(q)]
    seen += [torch.compile(into, fullgraph=True, backend="aot_eager")(prefill[0]), out]
    with settings.override(tp_index_rows="replicated"), record_calls() as trace:
        seen.append(compiled(prefill[0]))
    assert [it.rows for it in trace.chunked] == [37]
    return [it.tolist() for it in seen]


def select_without_one(rank: int, missing: int, timeout: float) -> Selected:
    if rank == missing:
        os._exit(3)
    return select(rank, gathered([32]), {"timeout": timeout}, tp_index_rows="split")


def select_wrong(rank: int) -> list[str]:
    """The words for arguments whose shares would look right."""
    q, weights, keys, k = gathered([32])
    longer = torch.zeros(33, dtype=torch.int32)
    requests = paged(3, 2)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((q, weights, dataclasses.replace(keys, starts=longer), k), {}),
        ((q, torch.ones(33, HEADS), keys, k), {}),
        ((requests[0], requests[1][:-1], *requests[2:]), {}),
        ((q, weights, keys, k), {"out": torch.zeros(31, k, dtype=torch.int32)}),
        ((q, weights, (keys.keys, keys.scales), k), {}),
        ((q, weights, keys, 0), {}),
        ((q, weights, keys, k), {"longest_tokens": -1}),
    ]
    return [select(rank, arguments, named, tp_index_rows="split").words for arguments, named in wrong]


def decode_inputs(heads: int) -> tuple[torch.Tensor, Any, torch.Tensor, torch.Tensor]:
    """Queries of all heads, a cache, slots and sinks."""
    generator = torch.Generator().manual_seed(8)
    cache = random_mla_cache(generator, MlaLayout(), 2, CPU)
    q = torch.randn(3, heads, cache.layout.width, generator=generator).to(torch.bfloat16)
    slots = torch.stack([torch.randperm(128, generator=generator)[:20] for _ in range(3)]).to(torch.int32)
    return q, cache, slots, torch.randn(heads, generator=generator)


def decode_heads(rank: int, heads: int, world: int) -> tuple[Any, ...]:
    """Each rank attends with its heads, and all get those of all."""
    q, cache, slots, sink = decode_inputs(heads)
    split = HeadSplit(heads, world)
    own = split.of(rank)
    out, lse = sparse_mla_decode(q[:, own], cache, slots, sm_scale=0.1, attn_sink=sink[own])
    joined = split.join(out)
    return joined.dtype, joined.float().tolist(), split.join(lse).tolist(), tuple(split.join(out[:0]).shape)


def join_wrong(rank: int) -> list[str]:
    """The words for what cannot be joined; no rank waits for another."""
    split = HeadSplit(7, 2)
    own = split.counts[rank]
    wrong = [
        (split, torch.ones(3, 7, 5)),
        (split, torch.ones(3)),
        (split, torch.ones(3, own, 5, dtype=torch.int32)),
        (split, None),
        (HeadSplit(7, 3), torch.ones(3, own, 5)),
    ]
    words = []
    for by, values in wrong:
        try:
            by.join(values)  # type: ignore[arg-type]
        except Exception as error:
            words.append(f"{type(error).__name__}: {error}")
    return words
