"""How a vendor's paged kernel shares out the work of one step: made once, used by every layer of the step.

Native: a request is one row of the kernel's call, and its queries share one read of its keys. Every column of its
lengths is the request's full length; causality is left to the lengths that top-k takes. Expanded: each query is a row
of its own, with its own length and a copy of its request's pages.

A kernel that is given lengths and shares that do not belong together may never end. So a schedule holds both, is
refreshed as a whole, and one that does not describe a call is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import RangeError, ShapeError, StrideError

Form = Literal["native", "expanded"]

PAGE_TOKENS = 64
"""Tokens of the pages that a schedule counts in."""


@dataclass(frozen=True, slots=True)
class PagedSchedule:
    """The shares of one step, with what they were made of.

    Attributes:
        form: native or expanded.
        requests: b, how many requests.
        next_n: n, rows a request.
        context_lens: int32, contiguous: native [b, n], every column the request's full length; expanded [b * n, 1]. At
            least 1 and at most what the pages hold, whatever the lengths of the step were.
        page_table: int32, contiguous: native [b, pages], one row a request; expanded [b * n, pages].
        work: int32 [shares + 1, 2], what the library made of exactly `context_lens`.
        num_sms: how many multiprocessors it was made for.
        cache_pages: pages of the caches that `page_table` was cut to; 0 if to none, so that each layer has to.
    """

    form: Form
    requests: int
    next_n: int
    context_lens: torch.Tensor
    page_table: torch.Tensor
    work: torch.Tensor
    num_sms: int
    cache_pages: int = 0

    @property
    def described(self) -> str:
        """What it is of, in words."""
        pages = self.page_table.shape[-1]
        return f"{self.form}, of {self.requests} requests with {self.next_n} rows each over {pages} pages"

    @property
    def parts(self) -> tuple[str, list[torch.Tensor], list[int]]:
        """What a node of a graph, which takes no objects, can take: see `schedule_of_parts`."""
        numbers = [self.requests, self.next_n, self.num_sms, self.cache_pages]
        return self.form, [self.context_lens, self.page_table, self.work], numbers


def parts_of(schedule: PagedSchedule | None) -> tuple[str, list[torch.Tensor], list[int]]:
    """The parts of a schedule, or those of none."""
    return ("", [], []) if schedule is None else schedule.parts


def schedule_of_parts(form: str, tensors: list[torch.Tensor], numbers: list[int]) -> PagedSchedule | None:
    """The schedule that `parts_of` was given."""
    if not form:
        return None
    (requests, next_n, num_sms, cache_pages), (lens, table, work) = numbers, tensors
    return PagedSchedule(form, requests, next_n, lens, table, work, num_sms, cache_pages)  # type: ignore[arg-type]


def check_schedule(args: Arguments, schedule: PagedSchedule, name: str, b: int, n: int, pages: int) -> None:
    """Check that a schedule describes a call of b requests with n rows each over so many pages.

    Raises:
        ShapeError: it is of other requests, rows or pages, or its tensors are not those of its form.
        DtypeError, StrideError, DeviceError, RangeError: its tensors are no int32, or apart, or elsewhere; its form is
            unknown.
    """
    args.kind(schedule, name, PagedSchedule)
    if schedule.form not in get_args(Form):
        raise RangeError(args.op, f"{name}.form", f"is {schedule.form!r}", " or ".join(map(repr, get_args(Form))))
    if (schedule.requests, schedule.next_n, *schedule.page_table.shape[1:]) != (b, n, pages):
        wanted = f"one of {b} requests with {n} rows each over {pages} pages, as in the call"
        raise ShapeError(args.op, name, f"is {schedule.described}", wanted)
    rows, columns = (b, n) if schedule.form == "native" else (b * n, 1)
    parts = {
        "context_lens": (schedule.context_lens, f"{rows} {columns}"),
        "page_table": (schedule.page_table, f"{rows} {pages}"),
        "work": (schedule.work, f"{schedule.work.shape[0] if schedule.work.ndim else 1} 2"),
    }
    for part, (tensor, dims) in parts.items():
        args.tensor(tensor, f"{name}.{part}", dims, dtype=torch.int32)
        if not tensor.is_contiguous():
            raise StrideError(args.op, f"{name}.{part}", f"has strides {list(tensor.stride())}", "a contiguous tensor")


def check_schedule_is_current(
    args: Arguments, schedule: PagedSchedule, name: str, context_lens: torch.Tensor, *, on_accelerators: bool
) -> None:
    """Check that no row of a call sees more than the schedule, which fits the call, was made for.

    Args:
        args: whose call it is.
        schedule: the schedule.
        name: what the caller calls it.
        context_lens: int32 [b, n], positions that each row of the call sees.
        on_accelerators: check there too, at the price of a host synchronisation. On the CPU it is always done.

    Raises:
        RangeError: it was made for shorter requests, so that the last positions would not be computed.
    """
    if not (context_lens.is_cpu or on_accelerators) or context_lens.numel() == 0:
        return
    longest = schedule.page_table.shape[1] * PAGE_TOKENS
    seen, made_for = context_lens.clamp(max=longest), schedule.context_lens.view(context_lens.shape)
    beyond = seen > made_for
    if bool(beyond.any()):
        place = [int(axis) for axis in beyond.nonzero()[0]]
        came = f"was made for {int(made_for[tuple(place)])} positions at {place}"
        raise RangeError(args.op, name, came, f"{int(seen[tuple(place)])} at least, as many as that row sees")
