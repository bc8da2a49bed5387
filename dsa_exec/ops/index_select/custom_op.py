"""`torch.ops.dsa.index_select_gathered` and `index_select_paged`: the op as a node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.core.paged_schedule import schedule_of_parts
from dsa_exec.layouts.index_k import IndexKLayout


def numbers_of(memory: MemoryReading | None) -> list[int]:
    """A reading of the memory as a node takes it: three numbers, or none."""
    return [] if memory is None else [memory.total_bytes, memory.free_bytes, memory.reusable_bytes]


def _reading(numbers: list[int]) -> MemoryReading | None:
    return MemoryReading(*numbers) if numbers else None


@torch.library.custom_op("dsa::index_select_gathered", mutates_args=())
def index_select_gathered_node(
    q: Tensor,
    head_weights: Tensor,
    keys: Tensor,
    scales: Tensor | None,
    starts: Tensor,
    ends: Tensor,
    k: int,
    memory: list[int],
) -> Tensor:
    """The indices that the public function selects of gathered keys."""
    from dsa_exec.ops.index_select import GatheredKeys, select_now

    gathered = GatheredKeys(keys, scales, starts, ends)
    return select_now(q, head_weights, gathered, k, _reading(memory), keeps_workspace=False).indices


@index_select_gathered_node.register_fake
def _fake_gathered(
    q: Tensor,
    _head_weights: Tensor,
    _keys: Tensor,
    _scales: Tensor | None,
    _starts: Tensor,
    _ends: Tensor,
    k: int,
    _memory: list[int],
) -> Tensor:
    return q.new_empty(q.shape[0], k, dtype=torch.int32)


@torch.library.custom_op("dsa::index_select_paged", mutates_args=())
def index_select_paged_node(
    q: Tensor,
    head_weights: Tensor,
    data: Tensor,
    layout: str,
    page_table: Tensor,
    context_lens: Tensor,
    k: int,
    memory: list[int],
    form: str,
    schedule: list[Tensor],
    numbers: list[int],
) -> Tensor:
    """The indices that the public function selects of keys in a cache."""
    from dsa_exec.ops.index_select import PagedKeys, select_now

    cache = IndexKCache(data, IndexKLayout.of_spec(layout))
    paged = PagedKeys(cache, page_table, context_lens, schedule_of_parts(form, schedule, numbers))
    return select_now(q, head_weights, paged, k, _reading(memory), keeps_workspace=False).indices


@index_select_paged_node.register_fake
def _fake_paged(
    q: Tensor,
    _head_weights: Tensor,
    _data: Tensor,
    _layout: str,
    _page_table: Tensor,
    _context_lens: Tensor,
    k: int,
    _memory: list[int],
    _form: str,
    _schedule: list[Tensor],
    _numbers: list[int],
) -> Tensor:
    return q.new_empty(q.shape[0] * q.shape[1], k, dtype=torch.int32)
