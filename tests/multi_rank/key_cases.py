"""What ranks do in the tests of context parallelism: each has a part of the keys, or a part of the rows."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from key_parts import cached, in_part, keys_of, queries

from dsa_config import settings
from dsa_exec import GatheredKeys, IndexKCache, MemoryReading, MlaCache, PagedKeys, index_select, sparse_mla_decode
from dsa_exec.caches.samples import random_mla_cache
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.key_split import KeySplit
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.views import SlotMap
from dsa_exec.ops.index_select.candidates import index_candidates
from dsa_exec.runtime.distributed import keys_in_group
from dsa_exec.runtime.distributed.attention_in_group import attention_in_group
from dsa_exec.runtime.distributed.head_split import HeadSplit
from dsa_exec.runtime.distributed.keys_in_group import index_select_over_keys
from dsa_exec.runtime.distributed.row_split import RowSplit

K = 24
SCALE = 0.05
HEADS = 8


def split_of(kind: str, world: int, lens: tuple[int, ...]) -> KeySplit:
    """By name: contiguous, or blocks of so many tokens by turns."""
    if kind == "contiguous":
        return KeySplit.contiguous(world, torch.tensor(lens, dtype=torch.int32))
    return KeySplit(world, int(kind))


def told(call: Any) -> tuple[str, str]:
    """The type and the words of what a call raises; empty if nothing."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def prefill(rank: int, kind: str, lens: tuple[int, ...], tied: bool, merge: str, room: list[int]) -> list[Any]:
    """What a rank selects of its own keys and of all, where memory is not the same on all; and one rank with all."""
    world = dist.get_world_size()
    keys, scales = keys_of(lens, tied=tied)
    request = torch.tensor([nth for nth, length in enumerate(lens) for _ in range(length)], dtype=torch.int64)
    seen = torch.cat([torch.arange(1, it + 1) for it in lens]).int()
    first = torch.tensor([0, *lens]).cumsum(0)[request].int()
    q, weights = queries(sum(lens))
    whole = index_select(q, weights, GatheredKeys(keys, scales, first, first + seen), K).indices
    split = split_of(kind, world, lens)
    by_row = split if isinstance(split.block, int) else KeySplit(world, split.block[request])
    mine = in_part(split, rank, lens)
    counts = split.count_in(torch.tensor(lens, dtype=torch.int32), rank)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0).int()])[request]
    ends = starts + by_row.count_in(seen, rank)
    local = GatheredKeys(keys.view(torch.uint8)[mine].view(E4M3), scales[mine], starts, ends)
    memory = MemoryReading(2**40, room[rank % len(room)])
    with settings.override(cp_merge=merge):
        own = index_select_over_keys(q, weights, local, K, by_row, memory=memory)
        every = index_select_over_keys(q, weights, local, K, by_row, give="all", memory=memory)
    of = by_row.part_of(whole.clamp(min=0))
    wanted = whole.long().where((whole >= 0) & (of == rank), -1)
    back = by_row.to_global(own.indices, rank)
    kept_all = back.sort(dim=1).values.equal(wanted.sort(dim=1).values)
    return [every.indices.equal(whole), kept_all, own.chunks, own.indices.shape == whole.shape]


def decode(rank: int, block: int, rows: int, merge: str, tied: bool) -> list[Any]:
    """A whole decode step over caches that each have a part: selection, attention, and both put together."""
    world, lens = dist.get_world_size(), (150, 70)
    split = KeySplit(world, block)
    keys, scales = keys_of(lens, tied=tied)
    seen = torch.tensor([[it - rows + 1 + row for row in range(rows)] for it in lens], dtype=torch.int32)
    q, weights = queries(len(lens) * rows)
    q = q.unflatten(0, (len(lens), rows))
    whole_keys, whole_table = cached(keys, scales, lens)
    whole = index_select(q, weights, PagedKeys(whole_keys, whole_table, seen), K).indices
    mine = in_part(split, rank, lens)
    counts = split.count_in(torch.tensor(lens, dtype=torch.int32), rank).tolist()
    cache, table = cached(keys.view(torch.uint8)[mine].view(E4M3), scales[mine], counts)
    with settings.override(cp_merge=merge):
        selection = index_select_over_keys(q, weights, PagedKeys(cache, table, split.count_in(seen, rank)), K, split)
    own = selection.indices
    # The latents of the same tokens, whole and in this rank's part.
    generator = torch.Generator().manual_seed(3)
    layout = MlaLayout("model", latent_dim=32, rope_dim=16, element_bytes=4)
    whole_cache = random_mla_cache(generator, layout, 4, torch.device("cpu"))
    latents = whole_cache.data
    whole_cache, whole_slots = _placed(latents, whole_table, lens, whole_keys, whole, layout)
    local_cache, _ = _placed(latents, table, counts, cache, own, layout, split, rank, lens)
    attn_q = torch.randn(len(lens) * rows, HEADS, 48, generator=generator)
    sink = torch.randn(HEADS, generator=generator)
    wanted, wanted_lse = sparse_mla_decode(attn_q, whole_cache, whole_slots, sm_scale=SCALE, attn_sink=sink)
    part = sparse_mla_decode(attn_q, local_cache, own, sm_scale=SCALE, topk_length=selection.counts)
    looked_at_all = sparse_mla_decode(attn_q, local_cache, own, sm_scale=SCALE)
    out, lse = attention_in_group(*part, attn_sink=sink)
    some, some_lse = attention_in_group(*part, heads="own", attn_sink=sink)
    mine_of_heads = slice(rank * HEADS // world, (rank + 1) * HEADS // world)
    return [
        float((out - wanted).abs().max()),
        float((lse - wanted_lse).abs().max()),
        some.equal(out[:, mine_of_heads]) and some_lse.equal(lse[:, mine_of_heads]),
        out.flatten().tolist(),
        sorted((own >= 0).sum(1).tolist()),
        part[0].equal(looked_at_all[0]),
    ]


def _placed(
    latents: torch.Tensor,
    table: torch.Tensor,
    counts: Any,
    cache: IndexKCache,
    slots: torch.Tensor,
    layout: MlaLayout,
    split: KeySplit | None = None,
    rank: int = 0,
    lens: tuple[int, ...] = (),
) -> tuple[MlaCache, torch.Tensor]:
    """An MLA cache with the same slots as an index-K cache: token p of request r has latent 150 r + p."""
    data = torch.full((-(-cache.slots // 64) * 64, latents.shape[1]), torch.nan)
    for request, count in enumerate(counts):
        places = torch.arange(count)
        at = SlotMap(table[request : request + 1], 16, torch.zeros(1, dtype=torch.int64)).slots(places[None])[0]
        positions = places if split is None else split.to_global(places[None], rank)[0]
        data[at] = latents[(150 * request + positions) % len(latents)]
    return MlaCache(data, layout), slots


def one_fails(rank: int, how: str) -> tuple[str, str]:
    """One rank cannot do its part; what each is told, and that the group is still of use after it."""
    keys, scales = keys_of((40,), tied=False)
    q, weights = queries(40)
    ends = torch.arange(1, 41, dtype=torch.int32)
    local = GatheredKeys(keys, scales, ends * 0, ends)
    k = K
    if rank == 1 and how == "another k":
        k = K - 1
    if rank == 1 and how == "bad window":
        local = GatheredKeys(keys, scales, ends * 0, ends + 40)
    world = dist.get_world_size()
    split = KeySplit(world, 2 if rank == 1 and how == "another split" else 1)
    if rank == 1 and how == "no split":
        split = 2  # type: ignore[assignment]
    if rank == 1 and how == "no queries":
        q = None  # type: ignore[assignment]
    merge = keys_in_group.topk_merge
    if rank == 1 and how == "nobody to merge":
        merge = mock.Mock(side_effect=UnsupportedCall("topk_merge", "triton", [("triton", "not on this rank")]))
    with settings.override(cp_merge="split"), mock.patch.object(keys_in_group, "topk_merge", merge):
        outcome = told(lambda: index_select_over_keys(q, weights, local, k, split))
    dist.barrier()
    return outcome


def freed_after_a_failure(rank: int) -> tuple[str, bool]:
    """What is told where this rank has failed, and whether its queries are gone once nobody has them any more."""
    keys, scales = keys_of((40,), tied=False)
    q, weights = queries(40)
    ends = torch.arange(1, 41, dtype=torch.int32)
    local = GatheredKeys(keys, scales, ends * 0, ends + 40 * rank)
    given = [q, weights, local, K, KeySplit(dist.get_world_size(), 1)]
    held = weakref.ref(q)
    del q
    gc.disable()
    try:
        error, _ = told(lambda: index_select_over_keys(*given))
        given.clear()
        return error, held() is None
    finally:
        gc.enable()


def slow_work(rank: int, timeout: float) -> tuple[str, str]:
    """Each rank works for longer than it would wait for others, and one a little longer than the other."""
    keys, scales = keys_of((40,), tied=False)
    q, weights = queries(40)
    ends = torch.arange(1, 41, dtype=torch.int32)
    local = GatheredKeys(keys, scales, ends * 0, ends)

    def slowly(*given: Any, **named: Any) -> Any:
        time.sleep(1.5 * timeout + 0.2 * rank)
        return index_candidates(*given, **named)

    with mock.patch.object(keys_in_group, "index_candidates", slowly):
        return told(
            lambda: index_select_over_keys(q, weights, local, K, KeySplit(dist.get_world_size(), 1), timeout=timeout)
        )


def in_a_group_of_some(rank: int) -> list[bool] | None:
    """What ranks 1 and 3 of four do alone: their places in the group are 0 and 1."""
    group = dist.new_group([1, 3])
    if rank not in (1, 3):
        return None
    lens, place = (40, 9), (1, 3).index(rank)
    keys, scales = keys_of(lens, tied=True)
    request = torch.tensor([0] * 40 + [1] * 9)
    seen = torch.cat([torch.arange(1, it + 1) for it in lens]).int()
    first = torch.tensor([0, 40])[request].int()
    q, weights = queries(49)
    whole = index_select(q, weights, GatheredKeys(keys, scales, first, first + seen), K).indices
    split, right = KeySplit(2, 4), []
    mine = in_part(split, place, lens)
    counts = split.count_in(torch.tensor(lens), place)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0).int()])[request]
    part = keys.view(torch.uint8)[mine].view(E4M3), scales[mine], starts, starts + split.count_in(seen, place)
    for merge in ("replicated", "split"):
        with settings.override(cp_merge=merge):
            every = index_select_over_keys(q, weights, GatheredKeys(*part), K, split, group=group, give="all")
        right.append(every.indices.equal(whole))
    out, lse = torch.full((1, 2, 4), float(rank)), torch.zeros(1, 2)
    merged, _ = attention_in_group(out, lse, group=group)
    own, _ = attention_in_group(out, lse, group=group, heads="own")
    right += [merged.eq(2).all().item(), own.shape == (1, 1, 4)]
    rows = RowSplit((7,), 2)
    values = torch.arange(7.0, requires_grad=True)
    joined = rows.join_in_group(rows.take(values, place), group=group)
    right += [joined.equal(values), not joined.requires_grad]
    right.append(
        HeadSplit(3, 2).join(torch.full((1, 2 - place, 4), float(place)), group)[0, :, 0].tolist() == [0, 0, 1]
    )
    return right


def one_hangs(rank: int, timeout: float) -> list[Any]:
    """Rank 1 never comes; what the others are told, at once and when they go on all the same."""
    keys, scales = keys_of((40,), tied=False)
    q, weights = queries(40)
    ends = torch.arange(1, 41, dtype=torch.int32)
    local = GatheredKeys(keys, scales, ends * 0, ends)
    split = KeySplit(dist.get_world_size(), 1)
    if rank == 1:
        time.sleep(3600)
    began = time.monotonic()
    outcomes = [told(lambda: index_select_over_keys(q, weights, local, K, split, timeout=timeout)) for _ in range(2)]
    outcomes.append(told(lambda: attention_in_group(torch.zeros(1, 2, 4), torch.zeros(1, 2))))
    return [outcomes, time.monotonic() - began]


def refuse(rank: int) -> list[tuple[str, str]]:
    """The words for arguments that do not go with the group; nobody waits."""
    keys, scales = keys_of((4,), tied=False)
    q, weights = queries(4)
    ends = torch.arange(1, 5, dtype=torch.int32)
    local = GatheredKeys(keys, scales, ends * 0, ends)
    world = dist.get_world_size()
    out, lse = torch.zeros(2, 3, 4), torch.zeros(2, 3)
    return [
        told(lambda: index_select_over_keys(q, weights, local, K, KeySplit(world + 1, 1))),
        told(lambda: index_select_over_keys(q, weights, local, K, KeySplit(world, 1), give="mine")),  # type: ignore[arg-type]
        told(lambda: attention_in_group(out, lse, heads="own")),
        told(lambda: attention_in_group(out, lse[:1])),
        told(lambda: RowSplit((4, 3), world).join_in_group(out)),
        told(lambda: RowSplit((4, 3), world + 1).join_in_group(out)),
    ]


def rows(rank: int, lens: tuple[int, ...], order: str) -> list[Any]:
    """Rows dealt to ranks and joined again; what each rank selects for its own, joined, is the whole selection."""
    world = dist.get_world_size()
    split = RowSplit(lens, world, order)  # type: ignore[arg-type]
    values = torch.arange(split.rows * 3).reshape(split.rows, 3)
    joined = split.join_in_group(split.take(values, rank))
    keys, scales = keys_of(lens, tied=True)
    request = torch.tensor([nth for nth, length in enumerate(lens) for _ in range(length)], dtype=torch.int64)
    starts = torch.tensor([0, *lens]).cumsum(0)[request].int()
    ends = starts + torch.cat([torch.arange(1, it + 1) for it in lens]).int()
    q, weights = queries(split.rows)
    whole = index_select(q, weights, GatheredKeys(keys, scales, starts, ends), K).indices
    mine = [split.take(it, rank) for it in (q.view(torch.uint8), weights, starts, ends)]
    own = index_select(mine[0].view(E4M3), mine[1], GatheredKeys(keys, scales, *mine[2:]), K).indices
    seen = (mine[3] - mine[2]).sum().item()
    return [joined.equal(values), split.join_in_group(own).equal(whole), split.counts()[rank], seen]
