"""Choose the positions that each query attends to: score and pick, under the logits budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.checks import FLOAT_DTYPES, MAX_K, Arguments
from dsa_exec.core.errors import DtypeError
from dsa_exec.core.hardware import MemoryReading, is_capturing
from dsa_exec.core.logits_workspace import LOGIT_BYTES, LogitsWorkspace, kept_workspace
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.paged_schedule import PagedSchedule, check_schedule, check_schedule_is_current, parts_of
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.trace import ChunkedCall, is_recorded, note_chunked
from dsa_exec.layouts.key_split import KeyPart, check_part
from dsa_exec.memory.logits_budget import LogitsBudget
from dsa_exec.ops.index_select.chunks import select_in_chunks
from dsa_exec.ops.index_select.custom_op import index_select_gathered_node, index_select_paged_node, numbers_of


@dataclass(frozen=True, slots=True)
class GatheredKeys:
    """Keys side by side (prefill), and which of them each row sees.

    Attributes:
        keys: [s, d], e4m3 or the model's dtype (`index_gather`).
        scales: f32 [s], or None where nothing is quantised.
        starts: int32 [t], the first key visible to each row.
        ends: int32 [t], one past the last. A window of 2^31 keys or more, most of them before the first, is empty.
    """

    keys: torch.Tensor
    scales: torch.Tensor | None
    starts: torch.Tensor
    ends: torch.Tensor

    def of_rows(self, rows: slice) -> GatheredKeys:
        """The same keys, for some rows."""
        return GatheredKeys(self.keys, self.scales, self.starts[rows], self.ends[rows])


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

    def of_requests(self, requests: slice) -> PagedKeys:
        """The same cache, for some requests; without a schedule, which is of all of them."""
        return PagedKeys(self.cache, self.page_table[requests], self.context_lens[requests])


@dataclass(frozen=True, slots=True)
class Selection:
    """What was selected, and how.

    Attributes:
        indices: int32 [t, k], ascending by position, -1 padded: positions relative to `starts` for gathered keys,
            slots of the pool for paged keys, and -1 for those on pages that the cache does not have.
        chunks: in how many chunks of rows; None in a graph that is being traced, where it is not known yet.
        budget: the logits budget that this followed from; None there.
        least_bytes: what the smallest chunk takes, at most: a row, or with paged keys the rows of a request.
        retries: how often memory ran out, and a chunk was done again with fewer rows.
        counts: int32 [t], how many of each row there are at most, -1 behind them; None where that was not counted.
    """

    indices: torch.Tensor
    chunks: int | None
    budget: LogitsBudget | None
    least_bytes: int = 0
    retries: int = 0
    counts: torch.Tensor | None = None

    @property
    def is_over_budget(self) -> bool:
        """Whether the budget is less than the smallest chunk takes, so that it was exceeded."""
        return self.budget is not None and self.least_bytes > self.budget.bytes


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `index_select`, or of some of its rows, with the settings that decide how it is done.

    `logits_backend` is what the setting of the op says that scores these keys; that of the other op is not looked at.
    `scarce`: there is no room for many rows' logits, so that whoever writes them would take few rows at a time.
    `scored`: the result is what `topk_candidates` tells of what was picked, for `key_part` of the keys.
    """

    q: torch.Tensor
    head_weights: torch.Tensor
    keys: GatheredKeys | PagedKeys
    k: int
    fuse_topk: bool
    logits_backend: str
    workspace: LogitsWorkspace = field(compare=False)  # no reason to choose another backend
    scarce: bool = False
    scored: bool = False
    key_part: KeyPart | None = field(default=None, compare=False)

    @property
    def refuses_scores(self) -> str | None:
        """Why who writes no logits does not take the call; None if it may."""
        return "the scores of what is picked are asked for, this kernel keeps none" if self.scored else None

    @property
    def width(self) -> int:
        """Columns of the logits."""
        if isinstance(self.keys, GatheredKeys):
            return self.keys.keys.shape[0]
        return self.keys.page_table.shape[1] * self.keys.cache.layout.page_tokens

    @property
    def units(self) -> int:
        """What chunks are made of: rows, or with paged keys requests."""
        return self.q.shape[0]

    @property
    def unit_rows(self) -> int:
        """Rows of a unit."""
        return 1 if isinstance(self.keys, GatheredKeys) else self.q.shape[1]

    def part(self, units: slice) -> Call:
        """The call for some of its units, all of them views."""
        rows = slice(units.start * self.unit_rows, units.stop * self.unit_rows)
        keys = self.keys.of_rows(units) if isinstance(self.keys, GatheredKeys) else self.keys.of_requests(units)
        options = self.k, self.fuse_topk, self.logits_backend, self.workspace, self.scarce, self.scored
        key_part = None if self.key_part is None else self.key_part.of_rows(rows)
        return Call(self.q[units], self.head_weights[rows], keys, *options, key_part)


def index_select(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    *,
    memory: MemoryReading | None = None,
    out: torch.Tensor | None = None,
) -> Selection:
    """The k best-scored positions of each row. Exact and deterministic: equal scores, lowest position wins.

    The logits exist for one chunk of rows at a time, which takes no more than the budget that settings and memory give
    now; the result does not depend on the chunks. Where memory runs out nevertheless, the chunk is done again with half
    the rows (`retry_out_of_memory`). No gradient passes, no collective is called.

    Args:
        q: e4m3 or float [t, h, d] with gathered keys, [b, n, h, d] with paged keys.
        head_weights: f32 [t, h] (t = b * n), with the queries' scales folded in (`index_quant`).
        keys: where the keys are, and which of them each row sees.
        k: how many to select, 1 to 4096.
        memory: the device's memory now; asked of the device if not given, and if there are 8,000,000 logits or more.
        out: int32 [t, k] to write into, rows as far apart as wanted.

    Returns:
        The selection, whose indices are `out` or a new tensor.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above, or (on the CPU, and elsewhere under
            `debug_check_indices`) a window outside the keys or a length beyond the page table or the schedule.
        OutOfMemory: memory ran out with a single row or request at a time.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node():
        indices = _selected_by_a_node(q, head_weights, keys, k, memory)
        return Selection(indices if out is None else out.copy_(indices), None, None)
    return select_now(q, head_weights, keys, k, memory, out)


def select_now(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    memory: MemoryReading | None,
    out: torch.Tensor | None = None,
    *,
    keeps_workspace: bool = True,
    key_part: KeyPart | None = None,
) -> Selection:
    """`index_select` where nothing is traced; `keeps_workspace`: the logits' memory may be kept for the next call.

    With `key_part` the indices are what `topk_candidates` tells: int32 [t, 2, k].
    """
    args = Arguments("index_select" if key_part is None else "index_candidates")
    _check_keys(args, q, keys)
    args.tensor(head_weights, "head_weights", "rows h", dtype=torch.float32)
    args.number(k, "k", low=1, high=MAX_K)
    if memory is not None:
        args.kind(memory, "memory", MemoryReading)
    rows = args.sizes["rows"]
    if out is not None:
        args.sizes["k"] = k
        args.tensor(out, "out", "rows k", dtype=torch.int32)
        args.rows_apart(out, "out")
    device = q.device
    capturing = is_capturing(device)
    # Of a graph, or of a program whose warm-up may give out a graph's memory, nothing may outlive the call.
    is_kept = keeps_workspace and not capturing
    workspace = kept_workspace(device, on_cuda=q.is_cuda) if is_kept else LogitsWorkspace(device)
    scored_by = settings.mqa_logits_backend if isinstance(keys, GatheredKeys) else settings.paged_mqa_logits_backend
    if key_part is not None:
        check_part(args, key_part, "key_part", rows)
    is_scored = key_part is not None
    call = Call(q, head_weights, keys, k, settings.fuse_topk, scored_by, workspace, False, is_scored, key_part)
    with torch.no_grad():
        indices, budget, plan, chunks, retries = select_in_chunks(call, memory, workspace, out, capturing=capturing)
    if is_recorded():
        sizes = call.width * LOGIT_BYTES, plan.least_bytes
        note_chunked(ChunkedCall(rows, chunks, *sizes, budget, plan.bytes, retries))
    return Selection(indices, chunks, budget, plan.least_bytes, retries)


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


def _check_keys(args: Arguments, q: torch.Tensor, keys: GatheredKeys | PagedKeys) -> None:
    """Check the queries and every field of the keys: chunks are slices, which would hide a wrong length."""
    checked = settings.debug_check_indices
    if isinstance(keys, GatheredKeys):
        args.sizes["rows"], _, _ = args.tensor(q, "q", "t h d", dtype=(E4M3, *FLOAT_DTYPES))
        key_count, _ = args.tensor(keys.keys, "keys.keys", "s d", dtype=q.dtype)
        args.scales(keys.scales, "keys.scales", keys.keys)
        for name, bound in (("keys.starts", keys.starts), ("keys.ends", keys.ends)):
            args.tensor(bound, name, "t", dtype=torch.int32)
            args.values(bound, name, low=0, high=key_count, on_accelerators=checked)
    elif isinstance(keys, PagedKeys):
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
    else:
        raise DtypeError("index_select", "keys", f"is {type(keys).__name__}", "GatheredKeys or PagedKeys")
