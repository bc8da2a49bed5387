"""Score the keys in the cache for each query row (decode)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.paged_schedule import PagedSchedule, check_schedule, check_schedule_is_current, parts_of
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.paged_mqa_logits.custom_op import paged_mqa_logits_node, paged_mqa_logits_out_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `paged_mqa_logits`."""

    q: torch.Tensor
    cache: IndexKCache
    head_weights: torch.Tensor
    context_lens: torch.Tensor
    page_table: torch.Tensor
    max_context_len: int
    clean: bool
    out: torch.Tensor | None
    schedule: PagedSchedule | None = field(default=None, compare=False)  # no reason to choose another backend


def paged_mqa_logits(
    q: torch.Tensor,
    cache: IndexKCache,
    head_weights: torch.Tensor,
    context_lens: torch.Tensor,
    page_table: torch.Tensor,
    max_context_len: int,
    *,
    clean: bool = True,
    out: torch.Tensor | None = None,
    schedule: PagedSchedule | None = None,
) -> torch.Tensor:
    """Indexer scores of keys in the cache: as `mqa_logits`, column j being position j of the row's request.

    Args:
        q: e4m3 [b, n, h, d], or float where the cache quantises nothing. n rows a request (next_n).
        cache: the index-K cache.
        head_weights: f32 [b * n, h], with the queries' scales folded in (`index_quant`).
        context_lens: int32 [b, n], how many positions each row sees, from position 0. 0 sees nothing.
        page_table: int32 [b, pages]. Keys on pages that the cache does not have score -inf.
        max_context_len: width of the result.
        clean: write -inf where a row sees nothing. Otherwise those cells are undefined.
        out: f32 [b * n, max_context_len] to write into, rows as far apart as wanted.
        schedule: how deep_gemm shares out this step's work (`paged_schedule` of these lengths and pages); other
            backends need none. Without one, deep_gemm makes one for each call, of expanded rows.

    Returns:
        f32 [b * n, max_context_len]: `out`, or a new tensor, whose rows may be further apart than they are wide.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above; a schedule of another call; or (on the
            CPU, and elsewhere under `debug_check_indices`) a length beyond the page table, the width, or what the
            schedule was made for. Unchecked, lengths beyond the page table or the width are cut.
        UnsupportedCall: no backend takes the call.
    """
    if torch.compiler.is_compiling() and is_one_node(q, cache.data, head_weights):
        inputs = q, cache.data, cache.layout.spec, head_weights, context_lens, page_table, max_context_len, clean
        if out is None:
            return paged_mqa_logits_node(*inputs, *parts_of(schedule))
        paged_mqa_logits_out_node(*inputs, out, *parts_of(schedule))
        return out
    args = Arguments("paged_mqa_logits")
    args.kind(cache, "cache", IndexKCache)
    b, n, _, _ = args.tensor(
        q, "q", f"b n h {cache.layout.head_dim}", dtype=E4M3 if cache.layout.format == "fp8" else FLOAT_DTYPES
    )
    args.device(cache.data, "cache")
    args.number(max_context_len, "max_context_len", low=0)
    args.sizes |= {"b*n": b * n, "max_context_len": max_context_len}
    args.tensor(head_weights, "head_weights", "b*n h", dtype=torch.float32)
    args.tensor(context_lens, "context_lens", "b n", dtype=torch.int32)
    _, pages = args.tensor(page_table, "page_table", "b pages", dtype=torch.int32)
    if out is not None:
        args.tensor(out, "out", "b*n max_context_len", dtype=torch.float32)
        args.rows_apart(out, "out")
    checked = settings.debug_check_indices
    longest = min(max_context_len, pages * cache.layout.page_tokens)
    args.values(context_lens, "context_lens", low=0, high=longest, on_accelerators=checked)
    if schedule is not None:
        check_schedule(args, schedule, "schedule", b, n, pages)
        check_schedule_is_current(args, schedule, "schedule", context_lens, on_accelerators=checked)
    call = Call(q, cache, head_weights, context_lens, page_table, max_context_len, clean, out, schedule)
    logits: torch.Tensor = run("paged_mqa_logits", call, q.device)
    return logits
