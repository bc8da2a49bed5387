"""`index_select` by ranks that have the same queries and keys, as those of a tensor-parallel group have.

The indexer has few heads, and every rank needs what all of them select: so each rank selects for all rows, or each for
its share of the rows, and what was selected is gathered, 4 bytes for each of k positions. Either way no collective is
called before a rank's own rows are done: in how many chunks it does them is its own affair.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from dsa_config import settings
from dsa_config.declarations.backends import AUTO
from dsa_exec.core.checks import FLOAT_DTYPES, MAX_K, Arguments
from dsa_exec.core.errors import DtypeError
from dsa_exec.core.hardware import MemoryReading, is_capturing
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.paged_schedule import parts_of
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys, Selection, select_now
from dsa_exec.ops.index_select.custom_op import numbers_of
from dsa_exec.runtime.distributed.gathering import gather_in_place
from dsa_exec.runtime.distributed.index_rows_nodes import gathered_node, paged_node
from dsa_exec.runtime.distributed.outcomes import each_does
from dsa_exec.runtime.distributed.ranks import TIMEOUT_S, Ranks
from dsa_exec.runtime.distributed.row_deal import NEIGHBOURS, RowDeal

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

NAME = "index_select_in_group"


def index_select_in_group(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    *,
    group: ProcessGroup | None = None,
    longest_tokens: int | None = None,
    memory: MemoryReading | None = None,
    out: torch.Tensor | None = None,
    timeout: float = TIMEOUT_S,
) -> Selection:
    """`index_select` on all ranks of a group with the same arguments: every rank gets what is selected for all rows.

    `tp_index_rows` says whether each rank selects for all rows or for a share of them. Where rows are split, all ranks
    get the same bits, as one rank alone would select them. What goes wrong while a rank selects for its share is told
    to all; so this waits for the other ranks, and with a group for NCCL alone for the device. While a CUDA graph is
    captured nothing is waited for, and an error is raised where it happens. Whether rows are split follows from
    settings (`agree` compares them) and shapes, which must be the same on all ranks; where they are not split, ranks
    know nothing of each other.

    Args:
        q: as of `index_select`, as are the arguments without a line of their own.
        head_weights: likewise.
        keys: gathered keys, whose rows are dealt out; or paged keys, whose requests are dealt out whole.
        k: likewise.
        group: the process group; the default group if not given.
        longest_tokens: keys of the longest window, if the caller knows it: what `auto` counts for a row at most.
        memory: this rank's memory; ranks may differ.
        out: likewise.
        timeout: how long to wait for the other ranks, in seconds.

    Returns:
        The selection for all rows. Its chunks, budget and retries are those of this rank's share.

    Raises:
        ArgumentError: as of `index_select`, where it is so on all ranks.
        OutOfMemory, UnsupportedCall: likewise.
        RankFailed: something went wrong on some ranks, or ranks select for other numbers of rows; on every rank.
        RankLost: not all ranks answered in time.
        NoProcessGroup: torch.distributed is not initialised, or this process is not of the group.
    """
    if is_one_node():
        indices = _selected_by_a_node(q, head_weights, keys, k, group, longest_tokens, memory, timeout)
        return Selection(indices if out is None else out.copy_(indices), None, None)
    return select_in_group_now(q, head_weights, keys, k, group, longest_tokens, memory, out, timeout)


def select_in_group_now(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    group: ProcessGroup | None,
    longest_tokens: int | None,
    memory: MemoryReading | None,
    out: torch.Tensor | None,
    timeout: float,
    *,
    keeps_workspace: bool = True,
) -> Selection:
    """`index_select_in_group` where nothing is traced; `keeps_workspace` as of `select_now`."""
    ranks = Ranks.of(group, f"{NAME}()", timeout)
    world = len(ranks.ranks)
    units, unit_rows = _sizes(q, head_weights, keys, k, longest_tokens, out)
    if world == 1 or units * unit_rows == 0 or not _is_split(units, keys, longest_tokens):
        return select_now(q, head_weights, keys, k, memory, out, keeps_workspace=keeps_workspace)
    deal = RowDeal(units, world, NEIGHBOURS if isinstance(keys, GatheredKeys) else 1)
    row_deal = deal.times(unit_rows)

    def own_share() -> tuple[tuple[torch.Tensor, torch.Tensor, Selection], str]:
        """What this rank selects, and all memory that is still needed."""
        shares = q.new_empty(world, row_deal.most, k, dtype=torch.int32)
        indices = q.new_empty(row_deal.rows, k, dtype=torch.int32) if out is None else out
        part = deal.share(q, ranks.place), row_deal.share(head_weights, ranks.place), _keys_of(deal, keys, ranks.place)
        own = shares[ranks.place, : row_deal.count(ranks.place)]
        selection = select_now(*part, k, memory, own, keeps_workspace=keeps_workspace)
        return (shares, indices, selection), f"selects {k} keys for each of {row_deal.rows} rows"

    with torch.no_grad():
        shares, indices, selection = each_does(ranks, own_share, is_told=not is_capturing(q.device))
        with ranks.together():
            gather_in_place(shares, ranks.place, ranks.group)
        return dataclasses.replace(selection, indices=row_deal.put_back(shares, indices))


def _selected_by_a_node(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    group: ProcessGroup | None,
    longest_tokens: int | None,
    memory: MemoryReading | None,
    timeout: float,
) -> torch.Tensor:
    options = "" if group is None else group.group_name, longest_tokens, numbers_of(memory), float(timeout)
    if isinstance(keys, GatheredKeys):
        return gathered_node(q, head_weights, keys.keys, keys.scales, keys.starts, keys.ends, k, *options)
    layout, tables = keys.cache.layout.spec, (keys.page_table, keys.context_lens)
    return paged_node(q, head_weights, keys.cache.data, layout, *tables, k, *options, *parts_of(keys.schedule))


def _is_split(rows: int, keys: GatheredKeys | PagedKeys, longest_tokens: int | None) -> bool:
    if (choice := settings.tp_index_rows) != AUTO:
        return choice == "split"
    if not isinstance(keys, GatheredKeys):
        return False
    seen = keys.keys.shape[0]
    if longest_tokens is not None:
        seen = min(seen, longest_tokens)
    return rows * seen >= settings.tp_index_rows_logits_threshold


def _sizes(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    longest_tokens: int | None,
    out: torch.Tensor | None,
) -> tuple[int, int]:
    """How many rows or requests there are, and rows of each. Checked is what a share of the rows would hide."""
    args = Arguments(NAME)
    dtypes = (E4M3, *FLOAT_DTYPES)
    if isinstance(keys, GatheredKeys):
        units, _, _ = args.tensor(q, "q", "t h d", dtype=dtypes)
        unit_rows = 1
        args.tensor(keys.keys, "keys.keys", "s d", dtype=q.dtype)
        args.tensor(keys.starts, "keys.starts", "t", dtype=torch.int32)
        args.tensor(keys.ends, "keys.ends", "t", dtype=torch.int32)
    elif isinstance(keys, PagedKeys):
        units, unit_rows, _, _ = args.tensor(q, "q", "b n h d", dtype=dtypes)
        args.tensor(keys.page_table, "keys.page_table", "b pages", dtype=torch.int32)
        args.tensor(keys.context_lens, "keys.context_lens", "b n", dtype=torch.int32)
    else:
        raise DtypeError(NAME, "keys", f"is {type(keys).__name__}", "GatheredKeys or PagedKeys")
    args.sizes["rows"] = units * unit_rows
    args.tensor(head_weights, "head_weights", "rows h", dtype=torch.float32)
    args.sizes["k"] = args.number(k, "k", low=1, high=MAX_K)
    if longest_tokens is not None:
        args.number(longest_tokens, "longest_tokens", low=0)
    if out is not None:
        args.tensor(out, "out", "rows k", dtype=torch.int32)
        args.rows_apart(out, "out")
    return units, unit_rows


def _keys_of(deal: RowDeal, keys: GatheredKeys | PagedKeys, place: int) -> GatheredKeys | PagedKeys:
    """What a rank's rows see."""
    if isinstance(keys, GatheredKeys):
        return GatheredKeys(keys.keys, keys.scales, deal.share(keys.starts, place), deal.share(keys.ends, place))
    return PagedKeys(keys.cache, deal.share(keys.page_table, place), deal.share(keys.context_lens, place))
