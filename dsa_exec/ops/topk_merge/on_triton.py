"""`topk_merge` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.ops.topk_merge import Call, Merged, put_in_order
from dsa_exec.ops.topk_merge.launch import portable_launch

MOST_CANDIDATES = 2**21 - 1
"""Of a row: three counts share a number of 64 bits."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    parts, _, _, each = call.candidates.shape
    if parts * each > MOST_CANDIDATES:
        return f"{parts} parts of {each} candidates, this kernel counts up to {MOST_CANDIDATES} of a row"
    return refuses_without_triton(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> Merged:
    _, rows, _, each = call.candidates.shape
    picked = call.candidates.new_empty(rows, call.k)
    bounds = call.candidates.new_empty(rows, 2) if call.bounds is None else call.bounds
    counts = call.candidates.new_empty(rows)
    if rows == 0:
        return Merged(picked, counts, bounds)
    from dsa_exec.ops.topk_merge.kernels.portable import launch_portable

    launch_portable(call, picked, counts, bounds, chosen_launch("topk_merge", "triton", portable_launch(each)))
    return Merged(picked if call.in_order else put_in_order(picked), counts, bounds)


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
