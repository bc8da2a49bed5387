"""`torch.ops.dsa.index_select_gathered_in_group` and `index_select_paged_in_group`: one node of a compiled graph.

Whether rows are split is decided when the graph runs, by the settings as of then; the group is known by its name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.core.paged_schedule import schedule_of_parts
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys


def _selected(
    q: Tensor,
    head_weights: Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    group_name: str,
    longest_tokens: int | None,
    memory: list[int],
    timeout: float,
) -> Tensor:
    from torch.distributed import distributed_c10d

    from dsa_exec.runtime.distributed.index_rows import select_in_group_now

    # torch has no public name for what its own nodes do.
    resolve: Any = distributed_c10d._resolve_process_group  # type: ignore[attr-defined]
    group = resolve(group_name) if group_name else None
    reading = MemoryReading(*memory) if memory else None
    options = group, longest_tokens, reading, None, timeout
    return select_in_group_now(q, head_weights, keys, k, *options, keeps_workspace=False).indices


@torch.library.custom_op("dsa::index_select_gathered_in_group", mutates_args=())
def gathered_node(
    q: Tensor,
    head_weights: Tensor,
    keys: Tensor,
    scales: Tensor | None,
    starts: Tensor,
    ends: Tensor,
    k: int,
    group_name: str,
    longest_tokens: int | None,
    memory: list[int],
    timeout: float,
) -> Tensor:
    """The indices that the public function selects of gathered keys."""
    gathered = GatheredKeys(keys, scales, starts, ends)
    return _selected(q, head_weights, gathered, k, group_name, longest_tokens, memory, timeout)


@gathered_node.register_fake
def _fake_gathered(
    q: Tensor,
    _head_weights: Tensor,
    _keys: Tensor,
    _scales: Tensor | None,
    _starts: Tensor,
    _ends: Tensor,
    k: int,
    _group_name: str,
    _longest_tokens: int | None,
    _memory: list[int],
    _timeout: float,
) -> Tensor:
    return q.new_empty(q.shape[0], k, dtype=torch.int32)


@torch.library.custom_op("dsa::index_select_paged_in_group", mutates_args=())
def paged_node(
    q: Tensor,
    head_weights: Tensor,
    data: Tensor,
    layout: str,
    page_table: Tensor,
    context_lens: Tensor,
    k: int,
    group_name: str,
    longest_tokens: int | None,
    memory: list[int],
    timeout: float,
    form: str,
    schedule: list[Tensor],
    numbers: list[int],
) -> Tensor:
    """The indices that the public function selects of keys in a cache."""
    cache = IndexKCache(data, IndexKLayout.of_spec(layout))
    paged = PagedKeys(cache, page_table, context_lens, schedule_of_parts(form, schedule, numbers))
    return _selected(q, head_weights, paged, k, group_name, longest_tokens, memory, timeout)


@paged_node.register_fake
def _fake_paged(
    q: Tensor,
    _head_weights: Tensor,
    _data: Tensor,
    _layout: str,
    _page_table: Tensor,
    _context_lens: Tensor,
    k: int,
    _group_name: str,
    _longest_tokens: int | None,
    _memory: list[int],
    _timeout: float,
    _form: str,
    _schedule: list[Tensor],
    _numbers: list[int],
) -> Tensor:
    return q.new_empty(q.shape[0] * q.shape[1], k, dtype=torch.int32)
