"""Choose the positions that each query attends to: score and pick, under the logits budget."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.core.errors import DtypeError
from dsa_exec.core.hardware import MemoryReading, is_capturing, memory_reading, total_memory_bytes
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.select import run
from dsa_exec.dispatch.trace import ChunkedCall, note_chunked
from dsa_exec.memory.logits_budget import LogitsBudget, logits_budget

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
    """

    cache: IndexKCache
    page_table: torch.Tensor
    context_lens: torch.Tensor


@dataclass(frozen=True, slots=True)
class Selection:
    """What was selected, and how.

    Attributes:
        indices: int32 [t, k], ascending by position, -1 padded: positions relative to `starts` for gathered keys,
            slots of the pool for paged keys.
        chunks: in how many chunks of rows.
        budget: the logits budget that this followed from.
    """

    indices: torch.Tensor
    chunks: int
    budget: LogitsBudget


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `index_select`, with the settings that decide how it is done."""

    q: torch.Tensor
    head_weights: torch.Tensor
    keys: GatheredKeys | PagedKeys
    k: int
    budget_bytes: int
    fuse_topk: bool

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

    The logits exist for one chunk of rows at a time, whose bytes fit the budget that settings and memory give now.

    Args:
        q: e4m3 or float [t, h, d] with gathered keys, [b, n, h, d] with paged keys.
        head_weights: f32 [t, h] (t = b * n), with the queries' scales folded in (`index_quant`).
        keys: where the keys are, and which of them each row sees.
        k: how many to select, 1 to 4096.
        memory: the device's memory now; asked of the device if not given.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above.
        UnsupportedCall: no backend takes the call.
    """
    args = Arguments("index_select")
    if isinstance(keys, GatheredKeys):
        t, _, _ = args.tensor(q, "q", "t h d", dtype=(E4M3, *FLOAT_DTYPES))
        args.sizes["rows"] = t
    elif isinstance(keys, PagedKeys):
        b, n, _, _ = args.tensor(q, "q", "b n h d", dtype=(E4M3, *FLOAT_DTYPES))
        args.sizes["rows"] = b * n
    else:
        raise DtypeError("index_select", "keys", f"is {type(keys).__name__}", "GatheredKeys or PagedKeys")
    args.tensor(head_weights, "head_weights", "rows h", dtype=torch.float32)
    budget = _budget(q.device, memory)
    call = Call(q, head_weights, keys, k, budget.bytes, settings.fuse_topk)
    indices, chunks = run("index_select", call, q.device)
    note_chunked(ChunkedCall(args.sizes["rows"], chunks, call.width * LOGIT_BYTES, budget))
    return Selection(indices, chunks, budget)


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
