"""Schedules for deep_gemm's paged kernel: of which form, made, and refreshed in place."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from dsa_exec.core.checks import Arguments
from dsa_exec.core.deep_gemm_records import multiprocessors, native_next_n, refuses_hardware, shares
from dsa_exec.core.errors import DeviceError, RangeError, ShapeError
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.paged_schedule import PAGE_TOKENS, Form, PagedSchedule

Mode = Literal["decode", "target_verify", "draft_extend"]

__all__ = ["Form", "Mode", "PagedSchedule", "make_schedule", "paged_form", "paged_schedule", "refuses_schedule"]


def refuses_schedule(hw: Capabilities) -> str | None:
    """Why no schedule can be made on a device, so that calls go without one; None if it can."""
    return refuses_hardware(hw)


def paged_form(mode: Mode, b: int, n: int, hw: Capabilities) -> tuple[Form, str]:
    """The form of a step's schedule, and why, in words.

    Native only in target_verify, with two or more rows a request and a library that takes so many.

    Args:
        mode: the step's mode.
        b: how many requests.
        n: rows a request.
        hw: the device.
    """
    if b == 0:
        return "expanded", "there is no request"
    if n < 2:
        return "expanded", f"a request has {n} row"
    if mode != "target_verify":
        return "expanded", f"{mode}: native is for target_verify alone"
    is_native, why = native_next_n(n, hw)
    return ("native" if is_native else "expanded"), why


def paged_schedule(
    mode: Mode,
    context_lens: torch.Tensor,
    page_table: torch.Tensor,
    *,
    hw: Capabilities,
    out: PagedSchedule | None = None,
    cache_pages: int = 0,
) -> PagedSchedule:
    """The schedule of a step, for every layer of it. To be made, or refreshed, whenever lengths or pages change.

    Not part of a captured graph: who replays one refreshes the schedule in place before.

    Args:
        mode: the step's mode.
        context_lens: int32 [b, n], positions that each row sees (`step_metadata`).
        page_table: int32 [b, pages], the pages of each request, of 64 tokens.
        hw: the device.
        out: a schedule that is refreshed in place and returned, so that captured graphs follow it. It has the form,
            shapes, multiprocessors and cache pages that a new one would have.
        cache_pages: pages of the caches that it is for, if all layers' have the same: the table is then cut to them
            here, once, and not in every layer.

    Raises:
        ArgumentError: a mode, shape, dtype, stride or device that is not as above; a device that deep_gemm cannot use;
            an `out` that is of something else.
    """
    args = Arguments("paged_schedule")
    if mode not in get_args(Mode):
        raise RangeError(args.op, "mode", f"is {mode!r}", " or ".join(map(repr, get_args(Mode))))
    b, n = args.tensor(context_lens, "context_lens", "b n", dtype=torch.int32)
    args.tensor(page_table, "page_table", "b pages", dtype=torch.int32)
    args.number(n, "n", low=1, high=1 if mode == "decode" else None)
    args.number(cache_pages, "cache_pages", low=0)
    if (sentence := refuses_schedule(hw)) is not None:
        raise DeviceError(args.op, "hw", f"is {hw.arch}", f"a device that deep_gemm can use ({sentence})")
    form, _ = paged_form(mode, b, n, hw)
    longest = page_table.shape[1] * PAGE_TOKENS
    # Tensors that were made under inference_mode could not be refreshed outside of it.
    with torch.inference_mode(mode=False):
        made = make_schedule(form, context_lens, page_table, hw, longest=longest, cache_pages=cache_pages)
    return made if out is None else _refreshed(args, out, made)


def make_schedule(
    form: Form,
    context_lens: torch.Tensor,
    page_table: torch.Tensor,
    hw: Capabilities,
    *,
    longest: int,
    cache_pages: int = 0,
) -> PagedSchedule:
    """A schedule of one form, of checked arguments.

    Lengths are cut to what the kernel may read: it does not check them, and reads before a request of length 0.

    Args:
        form: of which form.
        context_lens: int32 [b, n], positions that each row sees.
        page_table: int32 [b, pages].
        hw: a device that deep_gemm can use.
        longest: the most positions that a row may see.
        cache_pages: as in `paged_schedule`.
    """
    b, n = context_lens.shape
    lens = context_lens.clamp(min(longest, 1), longest)
    table = page_table.clamp(0, cache_pages - 1) if cache_pages else page_table
    if form == "native":
        lens = lens.amax(1, keepdim=True).expand(b, n)
    else:
        lens = lens.reshape(b * n, 1)
        table = table.repeat_interleave(n, 0) if n > 1 else table
    lens, table = lens.contiguous(), table.contiguous()
    if table.data_ptr() == page_table.data_ptr():
        table = table.clone()  # a refresh writes to it, and must not write to the caller's
    num_sms = multiprocessors(hw)
    slots = shares(n, hw, num_sms) if form == "native" else num_sms
    if lens.numel() == 0 or longest == 0:  # nothing that a kernel would be called for
        work = lens.new_zeros(slots + 1, 2)
    else:
        with torch.cuda.device_of(lens):
            work = hw.library("deep_gemm").module.get_paged_mqa_logits_metadata(lens, PAGE_TOKENS, slots)
    return PagedSchedule(form, b, n, lens, table, work, num_sms, cache_pages)


def _refreshed(args: Arguments, out: PagedSchedule, made: PagedSchedule) -> PagedSchedule:
    args.kind(out, "out", PagedSchedule)
    if (out.described, out.num_sms, out.cache_pages) != (made.described, made.num_sms, made.cache_pages):
        raise ShapeError(args.op, "out", f"is {_in_full(out)}", f"one that is {_in_full(made)}")
    _, kept, _ = out.parts
    _, fresh, _ = made.parts
    for before, after in zip(kept, fresh, strict=True):
        args.tensor(before, "out", " ".join(map(str, after.shape)), dtype=torch.int32)
        before.copy_(after)
    return out


def _in_full(schedule: PagedSchedule) -> str:
    return f"{schedule.described}, for {schedule.num_sms} multiprocessors and {schedule.cache_pages} cache pages"
