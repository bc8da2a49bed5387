"""`index_select` in plain Triton, scores and selection in one: the logits are never in memory."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.triton_support import declines_off_gpu, is_interpreted, multiplies_e4m3, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.layouts.views import SlotMap
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.index_select import Call, GatheredKeys, PagedKeys
from dsa_exec.ops.index_select.launch import PortableLaunch, portable_launch

MOST_KEYS = 2**31 - 2**15
"""Keys are numbered in int32, with room for the last tile beyond the end."""

MOST_HEADS = 256

SLOT_BYTES = 72
"""What a position takes at the worst moment where it becomes a slot in a step of its own."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_triton(hw) or refuses_gradients(call)) is not None:
        return sentence
    if (sentence := call.refuses_scores) is not None:
        return sentence
    if call.width > MOST_KEYS:
        return f"{call.width} keys, this kernel numbers up to {MOST_KEYS} in int32"
    heads, channels = call.q.shape[-2:]
    if not 1 <= heads <= MOST_HEADS or channels < 1:
        return f"{heads} heads of {channels} channels, this kernel takes 1 to {MOST_HEADS} heads of 1 or more"
    if isinstance(call.keys, PagedKeys):
        begin = call.keys.cache.data.data_ptr() % 4
        if call.keys.cache.layout.format == "fp8" and begin:
            return f"the cache begins {begin} bytes past a multiple of 4, where no f32 can be"
    return _launch(call).refuses(heads, call.k)


def _declines(_call: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw) or "slower than logits and topk apart: 2.8 times on an H100"


def _run(call: Call) -> torch.Tensor:
    rows = call.head_weights.shape[0]
    if rows == 0 or call.width == 0:
        return call.q.new_full((rows, call.k), -1, dtype=torch.int32)
    from dsa_exec.ops.index_select.kernels.launch_portable import select_of_gathered, select_of_paged

    arithmetic, launch = _arithmetic(call), _launch(call)
    with torch.cuda.device_of(call.q):
        if isinstance(call.keys, GatheredKeys):
            return select_of_gathered(call.q, call.head_weights, call.keys, call.k, launch, arithmetic)
        options = call.keys, call.k, launch, arithmetic
        picked = select_of_paged(call.q, call.head_weights, *options, to_slots=call.fuse_topk)
    if call.fuse_topk:
        return picked
    requests, next_n = call.q.shape[:2]
    request_of_row = torch.arange(requests, device=call.q.device).repeat_interleave(next_n)
    cache = call.keys.cache
    slot_map = SlotMap(call.keys.page_table, cache.layout.page_tokens, request_of_row, cache.slots)
    return slot_map.slots(picked).to(torch.int32)


def _arithmetic(call: Call) -> str:
    """What the kernels turn queries and keys into before they multiply them."""
    if is_interpreted():  # the interpreter multiplies bf16 wrongly and reads NaN of e4m3 as a number
        return "f32"
    if call.q.dtype is E4M3:
        return "same" if multiplies_e4m3(capabilities(call.q.device).arch) else "f16"
    keys = call.keys.keys if isinstance(call.keys, GatheredKeys) else call.keys.cache.data
    return "same" if call.q.dtype == keys.dtype and call.q.dtype.itemsize == 2 else "f32"


def _launch(call: Call) -> PortableLaunch:
    heads, channels = call.q.shape[-2:]
    element_bytes = {"same": call.q.dtype.itemsize, "f16": 2, "f32": 4}[_arithmetic(call)]
    sizes = heads, channels, call.width, call.k, element_bytes
    return chosen_launch("index_select", "triton", portable_launch(*_rows(call), *sizes))


def _rows(call: Call) -> tuple[int, int]:
    """How many rows may share a program, and how many times so many there are."""
    return (call.units, 1) if isinstance(call.keys, GatheredKeys) else (call.unit_rows, call.units)


def _footprint(call: Call, _: Capabilities) -> Footprint:
    launch, (unit_rows, units) = _launch(call), _rows(call)
    scratch = launch.scratch_bytes(launch.groups(unit_rows) * units, call.width)
    slots = 0 if isinstance(call.keys, GatheredKeys) or call.fuse_topk else SLOT_BYTES
    return Footprint(fixed_bytes=scratch, row_bytes=call.k * (4 + slots))


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20, reads=("kernel_launch",), footprint=_footprint)
