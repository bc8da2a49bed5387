"""`index_select` by ranks that each hold a part of every request's keys (context parallel): exactly what one selects.

A rank selects of its own keys, and tells the others the scores and the positions of those: 8 bytes for each of k. The
best of all are among them, equal scores included, so that a merge is exact. A rank needs no more of it than which of
its own keys stay, as it attends to these alone and `attention_in_group` puts the parts together.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import torch

from dsa_config import settings
from dsa_config.declarations.backends import AUTO
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import RangeError
from dsa_exec.core.hardware import MemoryReading, is_capturing
from dsa_exec.layouts.key_split import KeyPart, KeySplit
from dsa_exec.layouts.views import SlotMap
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys, Selection
from dsa_exec.ops.index_select.candidates import index_candidates
from dsa_exec.ops.topk_merge import topk_merge
from dsa_exec.runtime.distributed.gathering import exchange, gather
from dsa_exec.runtime.distributed.outcomes import each_does
from dsa_exec.runtime.distributed.ranks import TIMEOUT_S, Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

NAME = "index_select_over_keys"

Give = Literal["own", "all"]


def index_select_over_keys(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    split: KeySplit,
    *,
    group: ProcessGroup | None = None,
    give: Give = "own",
    memory: MemoryReading | None = None,
    timeout: float = TIMEOUT_S,
) -> Selection:
    """The k best keys of each row, of those of all ranks: to the bit what one rank with all keys selects.

    All ranks have the same query rows. `cp_merge` says whether each merges what all found for all rows, or for its
    share of them. What goes wrong on one rank is told to all; so this waits for the other ranks, and with a group for
    NCCL alone for the device. While a CUDA graph is captured nothing is waited for, and an error is raised where it
    happens. No collective is called before a rank's own keys are done, in how many chunks ever.

    Args:
        q: as of `index_select`.
        head_weights: likewise.
        keys: this rank's own. Windows and lengths count these alone: `split.count_in(lens, rank)`. A row's window
            begins where its request begins.
        k: likewise.
        split: how keys are dealt to the ranks, in the order of the group. A block of each row is int32 [t].
        group: the process group; the default group if not given.
        give: "own": those that this rank holds, numbered as in its own keys: positions from `starts` on of gathered
            keys, slots of the pool for paged ones. "all": positions in the request, whoever holds them.
        memory: this rank's memory; ranks may differ.
        timeout: how long to wait for the other ranks, in seconds.

    Returns:
        The selection: int32 [t, k], ascending by position, -1 padded. Chunks, budget and retries are this rank's; so
        are the counts of own ones, which `sparse_mla_decode` takes as `topk_length`: it looks at no more.

    Raises:
        ArgumentError: as of `index_select`, or a split of another number of parts; where it is so on all ranks.
        OutOfMemory, UnsupportedCall: likewise.
        RankFailed: something went wrong on some ranks, or ranks make other calls; on every rank.
        RankLost: not all ranks answered in time.
        NoProcessGroup: torch.distributed is not initialised, or this process is not of the group.
    """
    ranks = Ranks.of(group, f"{NAME}()", timeout)
    world = len(ranks.ranks)
    is_told = world > 1 and not (isinstance(q, torch.Tensor) and is_capturing(q.device))

    def own_part() -> tuple[tuple[Selection, KeyPart, torch.Tensor, torch.Tensor | None], str]:
        """What this rank has for the others, with the most of the memory that is still needed."""
        part = KeyPart(_checked(split, world), ranks.place)
        if give not in ("own", "all"):
            raise RangeError(NAME, "give", f"is {give!r}", "'own' or 'all'")
        selection = index_candidates(q, head_weights, keys, k, part, memory=memory)
        rows = len(selection.indices)
        is_split = world > 1 and rows > 0 and _is_split(rows)
        told = _room(selection.indices, world, is_split=is_split)
        topk_merge(told[:, :0], k)  # who is to merge is decided, or refuses, before anything is exchanged
        received = torch.empty_like(told) if is_split else None
        block = split.block if isinstance(split.block, int) else "of each row"
        words = f"selects {k} keys for each of {rows} rows, {block=}, {give=}, {is_split=}"
        return (selection, part, told, received), words

    with torch.no_grad():
        selection, part, told, received = each_does(ranks, own_part, is_told=is_told)
        slot_map = _slot_map(keys) if give == "own" else None
        if received is not None:
            picked, counts = _by_shares(ranks, told, received, selection.indices, k, part, slot_map, give)
        else:
            if world > 1:
                with ranks.together():
                    gather(selection.indices, told, ranks.group)
            merged = topk_merge(told, k, keep=part if give == "own" else None, slot_map=slot_map)
            picked, counts = merged.picked, merged.counts if give == "own" else None
    return dataclasses.replace(selection, indices=picked, counts=counts)


def _checked(split: KeySplit, world: int) -> KeySplit:
    Arguments(NAME).kind(split, "split", KeySplit)
    if split.parts != world:
        raise RangeError(NAME, "split.parts", f"is {split.parts}", f"{world}, the ranks of the group")
    return split


def _is_split(rows: int) -> bool:
    choice = settings.cp_merge
    return rows >= settings.cp_merge_rows_threshold if choice == AUTO else choice == "split"


def _room(own: torch.Tensor, world: int, *, is_split: bool) -> torch.Tensor:
    """Where the candidates of all ranks go, [world, t, 2, k]; or own ones [t, 2, k] by the rank that merges them.

    For shares of rows they are padded to as many for each rank, with such that have no candidate.
    """
    rows = own.shape[0]
    if not is_split:
        return own[None] if world == 1 else own.new_empty(world, *own.shape)
    each = -(-rows // world)
    if each * world == rows:
        return own.unflatten(0, (world, each))
    told = own.new_empty(each * world, *own.shape[1:])
    told[:rows] = own
    told[rows:] = -1
    return told.unflatten(0, (world, each))


def _by_shares(
    ranks: Ranks,
    told: torch.Tensor,
    received: torch.Tensor,
    own: torch.Tensor,
    k: int,
    part: KeyPart,
    slot_map: SlotMap | None,
    give: Give,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Each rank merges its share of the rows, and the others are told what it found; with counts of the own ones."""
    world, rows = len(told), len(own)
    with ranks.together():
        exchange(told, received, ranks.group)
    # Of bounds alone nothing is in an order.
    merged = topk_merge(received, k, in_order=give == "own")
    found = merged.bounds if give == "own" else merged.picked
    shares = found.new_empty(world, *found.shape)
    with ranks.together():
        gather(found, shares, ranks.group)
    found = shares.flatten(0, 1)[:rows]
    if give == "all":
        return found, None
    kept = topk_merge(own[None], k, keep=part, bounds=found, slot_map=slot_map)
    return kept.picked, kept.counts


def _slot_map(keys: GatheredKeys | PagedKeys) -> SlotMap | None:
    if isinstance(keys, GatheredKeys):
        return None
    tokens, each = keys.cache.layout.page_tokens, keys.context_lens.shape[1]
    return SlotMap(keys.page_table, tokens, None, keys.cache.slots, rows_per_request=each)
