"""Choose the positions that each query attends to: score and pick, under the logits budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.checks import FLOAT_DTYPES, MAX_K, Arguments
from dsa_exec.core.errors import DtypeError
from dsa_exec.core.hardware import MemoryReading, is_capturing, memory_reading, total_memory_bytes
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.paged_schedule import PagedSchedule, check_schedule, check_schedule_is_current, parts_of
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.dispatch.trace import ChunkedCall, note_chunked
from dsa_exec.memory.logits_budget import LogitsBudget, logits_budget
from dsa_exec.ops.index_select.custom_op import index_select_gathered_node, index_select_paged_node, numbers_of

LOGIT_BYTES = 4


@dataclass(frozen=True, slots=True)
class GatheredKeys:
    """Keys side by side (prefill), and which of them each row sees.

    Attributes:
        keys: [s, d], e4m3 or the model's dtype (`index_gather`).
        scales: f32 [s], or None where nothing is quantised.
        starts: int32 [t], the first key visible to each row.
        ends: int32 [t], one past the last.
    """

    keys: torch.Tensor
    scales: torch.Tensor | None
    starts: torch.Tensor
    ends: torch.Tensor


@dataclass(frozen=True, slots=True)
class PagedKeys:
    """Keys in the cache (decode), and how many of them each row sees.

    Attributes:
        cache: the index-K cache.
        page_table: int32 [b, pages].
        context_lens: int32 [b, n], positions visible to each row, from 0.
        schedule: how deep_gemm shares out this step's work (`paged_schedule` of these lengths and pages); used where
            all rows are scored at once. A chunk of them has one of its own.
    """

    cache: IndexKCache
    page_table: torch.Tensor
    context_lens: torch.Tensor
    schedule: PagedSchedule | None = field(default=None, compare=False)  # no reason to choose another backend


@dataclass(frozen=True, slots=True)
class Selection:
    """What was selected, and how.

    Attributes:
        indices: int32 [t, k], ascending by position, -1 padded: positions relative to `starts` for gathered keys,
            slots of the pool for paged keys, and -1 for those on pages that the cache does not have.
        chunks: in how many chunks of rows; None in a graph that is being traced, where it is not known yet.
        budget: the logits budget that this followed from; None there.
    """

    indices: torch.Tensor
    chunks: int | None
    budget: LogitsBudget | None


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `index_select`, with the settings that decide how it is done."""

    q: torch.Tensor
    head_weights: torch.Tensor
    keys: GatheredKeys | PagedKeys
    k: int
    fuse_topk: bool
    budget_bytes: int = field(compare=False)  # another one at every call, and no reason to choose another backend

    @property
    def width(self) -> int:
        """Columns of the logits."""
        if isinstance(self.keys, GatheredKeys):
            return self.keys.keys.shape[0]
        return self.keys.page_table.shape[1] * self.keys.cache.layout.page_tokens


def index_select(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    *,
    memory: MemoryReading | None = None,
) -> Selection:
    """The k best-scored positions of each row. Exact and deterministic: equal scores, lowest position wins.

    The logits exist for one chunk of rows at a time, whose bytes fit the budget that settings and memory give now. No
    gradient passes.

    Args:
        q: e4m3 or float [t, h, d] with gathered keys, [b, n, h, d] with paged keys.
        head_weights: f32 [t, h] (t = b * n), with the queries' scales folded in (`index_quant`).
        keys: where the keys are, and which of them each row sees.
        k: how many to select, 1 to 4096.
        memory: the device's memory now; asked of the device if not given.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above, or (on the CPU, and elsewhere under
            `debug_check_indices`) a window outside the keys or a length beyond the page table or the schedule.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node():
        return Selection(_selected_by_a_node(q, head_weights, keys, k, memory), None, None)
    args = Arguments("index_select")
    least_rows = _check_keys(args, q, keys)
    args.tensor(head_weights, "head_weights", "rows h", dtype=torch.float32)
    args.number(k, "k", low=1, high=MAX_K)
    if memory is not None:
        args.kind(memory, "memory", MemoryReading)
    budget = _budget(q.device, memory)
    call = Call(q, head_weights, keys, k, settings.fuse_topk, budget.bytes)
    with torch.no_grad():
        indices, chunks = run("index_select", call, q.device)
    row_bytes = call.width * LOGIT_BYTES
    note_chunked(ChunkedCall(args.sizes["rows"], chunks, row_bytes, least_rows * row_bytes, budget))
    return Selection(indices, chunks, budget)


def _selected_by_a_node(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    memory: MemoryReading | None,
) -> torch.Tensor:
    if isinstance(keys, GatheredKeys):
        parts = keys.keys, keys.scales, keys.starts, keys.ends
        return index_select_gathered_node(q, head_weights, *parts, k, numbers_of(memory))
    layout, inputs = keys.cache.layout.spec, (keys.page_table, keys.context_lens, k, numbers_of(memory))
    return index_select_paged_node(q, head_weights, keys.cache.data, layout, *inputs, *parts_of(keys.schedule))


def _check_keys(args: Arguments, q: torch.Tensor, keys: GatheredKeys | PagedKeys) -> int:
    """Check the queries and every field of the keys: chunks are slices, which would hide a wrong length.

    Returns:
        How many rows the smallest chunk has.
    """
    checked = settings.debug_check_indices
    if isinstance(keys, GatheredKeys):
        args.sizes["rows"], _, _ = args.tensor(q, "q", "t h d", dtype=(E4M3, *FLOAT_DTYPES))
        key_count, _ = args.tensor(keys.keys, "keys.keys", "s d", dtype=q.dtype)
        args.scales(keys.scales, "keys.scales", keys.keys)
        for name, bound in (("keys.starts", keys.starts), ("keys.ends", keys.ends)):
            args.tensor(bound, name, "t", dtype=torch.int32)
            args.values(bound, name, low=0, high=key_count, on_accelerators=checked)
        return 1
    if isinstance(keys, PagedKeys):
        args.kind(keys.cache, "keys.cache", IndexKCache)
        layout = keys.cache.layout
        dtype = E4M3 if layout.format == "fp8" else FLOAT_DTYPES
        b, n, _, _ = args.tensor(q, "q", f"b n h {layout.head_dim}", dtype=dtype)
        args.sizes["rows"] = b * n
        args.device(keys.cache.data, "keys.cache")
        _, pages = args.tensor(keys.page_table, "keys.page_table", "b pages", dtype=torch.int32)
        args.tensor(keys.context_lens, "keys.context_lens", "b n", dtype=torch.int32)
        longest = pages * layout.page_tokens
        args.values(keys.context_lens, "keys.context_lens", low=0, high=longest, on_accelerators=checked)
        if keys.schedule is not None:
            check_schedule(args, keys.schedule, "keys.schedule", b, n, pages)
            name, lens = "keys.schedule", keys.context_lens
            check_schedule_is_current(args, keys.schedule, name, lens, on_accelerators=checked)
        return n
    raise DtypeError("index_select", "keys", f"is {type(keys).__name__}", "GatheredKeys or PagedKeys")


def _budget(device: torch.device, memory: MemoryReading | None) -> LogitsBudget:
    capturing = is_capturing(device)
    if memory is None:
        memory = MemoryReading(total_memory_bytes(device), 0) if capturing else memory_reading(device)
    return logits_budget(
        memory,
        free_mem_fraction=settings.mqa_logits_free_mem_fraction,
        mem_fraction_static=settings.mem_fraction_static,
        max_chunk_bytes=settings.mqa_logits_max_chunk_bytes,
        capturing=capturing,
    )
