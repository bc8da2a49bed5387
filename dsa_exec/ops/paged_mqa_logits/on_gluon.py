"""`paged_mqa_logits` for Hopper's matrix units and copy engine: plain e4m3 pages of 64 tokens."""

from __future__ import annotations

import functools

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_hopper, refuses_without_hopper
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.paged_mqa_logits import Call
from dsa_exec.ops.paged_mqa_logits.launch import hopper_launch

HEADS = (32, 64)
MOST_PAGES = (2**31 - 1) // 66 - 1
"""Lines of 128 bytes, 66 a page, are numbered in int32, and so is the line past the last page."""
MOST_COLUMNS = 2**26
"""Pages of 1024 requests of so many positions are counted in int32."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_hopper(hw) or refuses_gradients(call)) is not None:
        return sentence
    layout, heads, pages = call.cache.layout, call.q.shape[2], call.cache.data.shape[0]
    if layout.format != "fp8" or layout.order != "plain" or layout.page_tokens != 64:
        return (
            f"the cache has {layout.order} pages of {layout.page_tokens} in the {layout.format} format, "
            "this kernel takes plain pages of 64 in the fp8 format"
        )
    if heads not in HEADS:
        return f"heads={heads}, this kernel takes 32 or 64"
    if pages > MOST_PAGES:
        return f"{pages} pages, this kernel numbers up to {MOST_PAGES} of them in int32"
    if call.max_context_len > MOST_COLUMNS:
        return f"max_context_len={call.max_context_len}, this kernel takes up to {MOST_COLUMNS}"
    begin = call.cache.data.data_ptr() % 16
    return f"the cache begins {begin} bytes past a multiple of 16, the copy engine takes multiples" if begin else None


def _declines(_call: Call, hw: Capabilities) -> str | None:
    return declines_off_hopper(hw)


def _run(call: Call) -> torch.Tensor:
    requests, next_n, _, _ = call.q.shape
    width = call.max_context_len
    out = call.q.new_empty(requests * next_n, width, dtype=torch.float32) if call.out is None else call.out
    if out.numel() == 0:
        return out
    from dsa_exec.ops.paged_mqa_logits.kernels.launch_hopper import write_logits

    launch = chosen_launch("paged_mqa_logits", "gluon", hopper_launch(requests, next_n, call.q.shape[2], width))
    write_logits(call, out, launch, _multiprocessors(call.q.device))
    return out


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


BACKEND = Backend("gluon", _run, _refuses, _declines, rank=10)
