"""What the rows of a forward step need beside their values: made once a step, shared by all layers, refreshed in place.

A step is made and refreshed by the same function, so that a captured graph means on replay what it meant at capture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dsa_config import settings
from dsa_config.declarations.backends import AUTO
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.checks import MAX_K, Arguments
from dsa_exec.core.errors import RangeError, ShapeError, UnsupportedCall
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.triton_support import refuses_without_hopper
from dsa_exec.ops.index_select import PagedKeys
from dsa_exec.ops.paged_mqa_logits.schedule import PagedSchedule, paged_schedule, refuses_schedule
from dsa_exec.ops.step_metadata import step_metadata
from dsa_exec.ops.step_metadata.lengths import Mode
from dsa_exec.ops.step_metadata.metadata import StepMetadata

SCHEDULED = "deep_gemm"
"""The backend of `paged_mqa_logits` whose kernel takes a schedule that is made beforehand."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One decode or speculative step of b requests with n rows each, in the order of requests.

    Its tensors stay the same; `refresh` gives them other values.

    Attributes:
        mode: the step's mode.
        b: requests.
        n: rows a request.
        index_topk: how many positions a row selects at most.
        metadata: lengths, requests and pages of the rows, with what follows from `index_topk`.
        page_table: int32 [b, pages], the pages of each request. With one row a request, the metadata's.
        cu_rows: int32 [b * n + 1], 0 to b * n: where each row begins, one query long, for kernels that ask.
        schedule: the work of a vendor's paged kernel, with lengths and pages as it wants them; None where none is used.
    """

    mode: Mode
    b: int
    n: int
    index_topk: int
    metadata: StepMetadata
    page_table: torch.Tensor
    cu_rows: torch.Tensor
    schedule: PagedSchedule | None = None

    @property
    def rows(self) -> int:
        """How many query rows the step has."""
        return self.b * self.n

    @property
    def pages(self) -> int:
        """Columns of the page table."""
        return self.page_table.shape[1]

    @property
    def kind(self) -> str:
        """All that a step it is refreshed from or copied to must have in common with it, in words."""
        made = self.schedule
        schedule = "no schedule"
        if made is not None:
            schedule = f"a schedule of form={made.form}, num_sms={made.num_sms}, cache_pages={made.cache_pages}"
        return f"{_kind(self.mode, self.b, self.n, self.pages, self.index_topk)}, {schedule}"

    def refresh(self, seq_lens: torch.Tensor, page_table: torch.Tensor) -> None:
        """Give every tensor the values of these lengths and pages, in place: `prepare_step` with `out`."""
        prepare_step(self.mode, seq_lens, page_table, self.n, index_topk=self.index_topk, out=self)

    def by_request(self, rows: torch.Tensor, name: str = "q") -> torch.Tensor:
        """Rows as [b, n, ...], which `paged_mqa_logits` takes.

        Args:
            rows: [b * n, ...].
            name: what the caller calls it.

        Raises:
            ShapeError: another number of rows.
        """
        if rows.ndim == 0 or rows.shape[0] != self.rows:
            wanted = f"{self.rows} rows, {self.n} for each of {self.b} requests"
            raise ShapeError("step", name, f"has shape {list(rows.shape)}", wanted)
        return rows.unflatten(0, (self.b, self.n))

    def paged_keys(self, cache: IndexKCache) -> PagedKeys:
        """What `index_select` takes as keys, for every layer: its cache with the step's pages, lengths and schedule."""
        return PagedKeys(cache, self.page_table, self.metadata.context_lens, schedule=self.schedule)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by its place, such as `metadata.cache_lens`. Some share their memory."""
        return dict(_tensors_in(self))


def next_n_of(rows: int, b: int) -> int:
    """How many rows each request has, where every request has the same number.

    Raises:
        ShapeError: the rows cannot be shared out evenly, or there are rows and no request.
    """
    if (rows % b if b else rows) != 0:
        raise ShapeError("step", "q", f"has {rows} rows", f"a multiple of {b}, as many for each request")
    return rows // b if b else 0


def prepare_step(
    mode: Mode,
    seq_lens: torch.Tensor,
    page_table: torch.Tensor,
    n: int = 1,
    *,
    index_topk: int,
    scheduled: bool | None = None,
    cache_pages: int | None = None,
    out: Step | None = None,
) -> Step:
    """Work out a step once, for all layers.

    Args:
        mode: `decode`, `target_verify` or `draft_extend` (`step_metadata` says what each row sees).
        seq_lens: int [b], tokens of each request: in target_verify without the n drafts, else all of them.
        page_table: int32 [b, pages]. Its width is the step's for good: as wide as the longest request will need.
        n: rows a request; 1 in decode.
        index_topk: how many positions a row selects at most, 1 to 4096.
        scheduled: whether to make the schedule of deep_gemm's paged kernel. None: if `paged_mqa_logits_backend` names
            it, or is auto on a device that it can use and our own kernel for Hopper cannot.
        cache_pages: pages of the index-K caches, if all layers' have the same: the schedule's page table is cut to them
            once, and not in every layer.
        out: a step of the same mode, shapes and `index_topk` that is refreshed in place and returned. It keeps the
            schedule and the `cache_pages` that it has: these two are not given with it.

    Raises:
        ArgumentError: a mode, shape, dtype, stride or device that is not as above; an `out` that is of another step;
            on the CPU, and elsewhere under `debug_check_indices`, a length out of range.
        UnsupportedCall: a schedule is wanted and deep_gemm cannot use the device.
    """
    args = Arguments("prepare_step")
    args.number(index_topk, "index_topk", low=1, high=MAX_K)
    b, pages = args.tensor(page_table, "page_table", "b pages", dtype=torch.int32)
    if out is not None:
        args.kind(out, "out", Step)
        is_of, wanted = _kind(out.mode, out.b, out.n, out.pages, out.index_topk), _kind(mode, b, n, pages, index_topk)
        if is_of != wanted:
            raise ShapeError("prepare_step", "out", f"is a step of {is_of}", wanted)
        for name, given in (("scheduled", scheduled), ("cache_pages", cache_pages)):
            if given is not None:
                raise RangeError("prepare_step", name, f"is {given} beside `out`", "None, `out` keeps what it has")
        _fill(out, seq_lens, page_table)
        return out
    # Tensors that were made under inference_mode could not be refreshed outside of it.
    with torch.inference_mode(mode=False):
        return _made(mode, seq_lens, page_table, n, index_topk, scheduled, cache_pages or 0)


def _made(
    mode: Mode,
    seq_lens: torch.Tensor,
    page_table: torch.Tensor,
    n: int,
    index_topk: int,
    scheduled: bool | None,
    cache_pages: int,
) -> Step:
    b, pages = page_table.shape
    metadata = step_metadata(mode, seq_lens, n, page_table=page_table, index_topk=index_topk)
    table = metadata.page_table
    if table is None or n != 1:  # a copy: the caller's table may be gone when the step is refreshed
        table = page_table.clone(memory_format=torch.contiguous_format)
    schedule = _schedule(mode, metadata, table, scheduled, cache_pages)
    if schedule is not None and schedule.page_table.shape == (b * n, pages) and not schedule.cache_pages:
        metadata = dataclasses.replace(metadata, page_table=schedule.page_table)  # the same pages: once is enough
    cu_rows = torch.arange(b * n + 1, dtype=torch.int32, device=page_table.device)
    return Step(mode, b, n, index_topk, metadata, table, cu_rows, schedule)


def _fill(step: Step, seq_lens: torch.Tensor, page_table: torch.Tensor) -> None:
    metadata, schedule = step.metadata, step.schedule
    step_metadata(step.mode, seq_lens, step.n, page_table=page_table, index_topk=step.index_topk, out=metadata)
    if step.page_table is not metadata.page_table:
        step.page_table.copy_(page_table)
    if schedule is not None:
        lens, hw = metadata.context_lens, capabilities(page_table.device)
        paged_schedule(step.mode, lens, step.page_table, hw=hw, cache_pages=schedule.cache_pages, out=schedule)


def _schedule(
    mode: Mode, metadata: StepMetadata, page_table: torch.Tensor, scheduled: bool | None, cache_pages: int
) -> PagedSchedule | None:
    hw = capabilities(page_table.device)
    if page_table.shape[0] == 0 or not (_uses_a_schedule(hw) if scheduled is None else scheduled):
        return None
    if (sentence := refuses_schedule(hw)) is not None:
        raise UnsupportedCall("paged_mqa_logits", settings.paged_mqa_logits_backend, [(SCHEDULED, sentence)])
    return paged_schedule(mode, metadata.context_lens, page_table, hw=hw, cache_pages=cache_pages)


def _uses_a_schedule(hw: Capabilities) -> bool:
    choice = settings.paged_mqa_logits_backend
    if choice != AUTO:
        return choice == SCHEDULED
    return refuses_without_hopper(hw) is not None and refuses_schedule(hw) is None


def _kind(mode: str, b: int, n: int, pages: int, index_topk: int) -> str:
    return f"mode={mode}, b={b}, n={n}, pages={pages}, index_topk={index_topk}"


def _tensors_in(value: Any, at: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a dataclass and of those in it, by name: one that is added is found without being named here."""
    for field in dataclasses.fields(value):
        part, name = getattr(value, field.name), f"{at}{field.name}"
        if isinstance(part, torch.Tensor):
            yield name, part
        elif dataclasses.is_dataclass(part):
            yield from _tensors_in(part, f"{name}.")
