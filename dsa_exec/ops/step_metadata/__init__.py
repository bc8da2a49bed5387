"""The lengths, requests and pages of the rows of a decode or speculative step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from dsa_config import settings
from dsa_exec.core.checks import INDEX_DTYPES, Arguments
from dsa_exec.core.errors import RangeError, ShapeError
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.step_metadata.custom_op import parts_of, step_metadata_node
from dsa_exec.ops.step_metadata.lengths import Mode
from dsa_exec.ops.step_metadata.metadata import StepMetadata

INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `step_metadata`."""

    mode: Mode
    seq_lens: torch.Tensor
    n: int
    page_table: torch.Tensor | None
    index_topk: int | None
    out: StepMetadata

    @property
    def drafts_to_come(self) -> int:
        """The tokens of each request that `seq_lens` does not count and the cache will hold."""
        return self.n if self.mode == "target_verify" else 0


def step_metadata(
    mode: Mode,
    seq_lens: torch.Tensor,
    n: int = 1,
    *,
    page_table: torch.Tensor | None = None,
    index_topk: int | None = None,
    out: StepMetadata | None = None,
) -> StepMetadata:
    """Work out what the rows of a step see, in one go, so that a captured graph can do it again on new lengths.

    Args:
        mode: `decode`, one row a request, which sees `seq_lens` tokens; `target_verify`, n rows that see one token more
            than `seq_lens` and so on; `draft_extend`, n rows, the last of which sees `seq_lens` tokens, none fewer
            than 0.
        seq_lens: int [b], tokens of each request: in target_verify without the n drafts, else all of them.
        n: rows a request; 1 in decode.
        page_table: int32 [b, pages], to be repeated for each row; None where that is not wanted.
        index_topk: how many positions a row selects at most; None where what follows from it is not wanted.
        out: what is written to and returned, such as `StepMetadata.allocate(b, n, device, pages)`; a fresh one if not
            given. It has a page table exactly if `page_table` is given, and the lengths that follow from `index_topk`
            exactly if that is.

    Returns:
        `cache_lens` [b], `context_lens` [b, n], `row_lens` and `request_of_row` [b * n], and `page_table`
        [b * n, pages] or None; with `index_topk` also `dsa_cache_lens` [b * n], and the sums `cu_cache_lens` [b + 1]
        and `cu_dsa_cache_lens` [b * n + 1], which end at the largest int32 should they come to more.

    Raises:
        ArgumentError: a mode, shape, dtype, stride or device that is not as above; on the CPU, and elsewhere under
            `debug_check_indices`, a length below 0 or one that int32 cannot hold. Unchecked, such a length is cut to
            the nearest that is allowed.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node():
        if out is None:
            pages = None if page_table is None else page_table.shape[1]
            selects = index_topk is not None
            out = StepMetadata.allocate(seq_lens.shape[0], n, seq_lens.device, pages, selects=selects)
        step_metadata_node(mode, seq_lens, n, page_table, index_topk, *parts_of(out))
        return out
    args = Arguments("step_metadata")
    if mode not in get_args(Mode):
        raise RangeError("step_metadata", "mode", f"is {mode!r}", " or ".join(map(repr, get_args(Mode))))
    args.number(n, "n", low=1, high=1 if mode == "decode" else INT32_MAX)
    (b,) = args.tensor(seq_lens, "seq_lens", "b", dtype=INDEX_DTYPES)
    most = INT32_MAX - (n if mode == "target_verify" else 0)
    args.values(seq_lens, "seq_lens", low=0, high=most, on_accelerators=settings.debug_check_indices)
    pages = None
    if page_table is not None:
        _, pages = args.tensor(page_table, "page_table", "b pages", dtype=torch.int32)
    if index_topk is not None:
        args.number(index_topk, "index_topk", low=1, high=INT32_MAX)
    if out is None:
        out = StepMetadata.allocate(b, n, seq_lens.device, pages, selects=index_topk is not None)
    else:
        args.kind(out, "out", StepMetadata)
        _check_out(args, out, n, wants_table=page_table is not None, selects=index_topk is not None)
    with torch.no_grad():
        run("step_metadata", Call(mode, seq_lens, n, page_table, index_topk, out), seq_lens.device)
    return out


def _check_out(args: Arguments, out: StepMetadata, n: int, *, wants_table: bool, selects: bool) -> None:
    rows = args.sizes["b"] * n
    args.tensor(out.cache_lens, "out.cache_lens", "b", dtype=torch.int32)
    args.tensor(out.context_lens, "out.context_lens", f"b {n}", dtype=torch.int32)
    args.tensor(out.request_of_row, "out.request_of_row", f"{rows}", dtype=torch.int32)
    args.rows_apart(out.context_lens, "out.context_lens")
    if wants_table != (out.page_table is not None):
        came = "is None" if wants_table else "is given"
        raise ShapeError(args.op, "out.page_table", came, "a page table in `out` exactly if `page_table` is given")
    if out.page_table is not None:
        args.tensor(out.page_table, "out.page_table", f"{rows} pages", dtype=torch.int32)
        args.rows_apart(out.page_table, "out.page_table")
    for name, count in (
        ("dsa_cache_lens", rows),
        ("cu_cache_lens", args.sizes["b"] + 1),
        ("cu_dsa_cache_lens", rows + 1),
    ):
        lens = getattr(out, name)
        if selects != (lens is not None):
            came = "is None" if selects else "is given"
            raise ShapeError(args.op, f"out.{name}", came, "lengths in `out` exactly if `index_topk` is given")
        if lens is not None:
            args.tensor(lens, f"out.{name}", f"{count}", dtype=torch.int32)
