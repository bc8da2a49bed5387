"""`index_store` by aiter: e4m3 keys, plain or preshuffled pages, written to exactly the slots that are given."""

from __future__ import annotations

import torch

from dsa_exec.caches.addresses import refuses_addresses
from dsa_exec.core.aiter_functions import RANK, READS, STORE, aiter_function, declines_aiter, refuses_aiter
from dsa_exec.core.fnuz import reads_fnuz
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.head_padding import lies_together
from dsa_exec.core.numerics import hadamard
from dsa_exec.dispatch.backend import Backend
from dsa_exec.ops.index_store import Call


def _refuses(call: Call, hw: Capabilities) -> str | None:
    layout = call.cache.layout
    parameters = ("preshuffle",) if layout.order == "preshuffled" else ()
    if (sentence := refuses_aiter(hw, STORE, *parameters) or refuses_addresses(call.cache)) is not None:
        return sentence
    if layout.format != "fp8":
        return "the cache is in the model format, aiter stores e4m3 keys with scales"
    if reads_fnuz(hw.arch):
        return f"arch={hw.arch}: aiter stores e4m3fnuz there, the cache holds e4m3"
    return "the cache holds no -0, which aiter stores" if layout.unsigned_zero else None


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_aiter(hw) or "it multiplies by a rounded reciprocal: a key may be one code off the specification's"


def _adapts(call: Call, _: Capabilities) -> str | None:
    return "keys are rotated before" if call.cache.layout.hadamard else None


def _run(call: Call) -> None:
    layout, data, keys = call.cache.layout, call.cache.data, call.keys
    if keys.shape[0] == 0:
        return
    if layout.hadamard:
        keys = hadamard(keys)
    if not lies_together(keys):
        keys = keys.clone(memory_format=torch.contiguous_format)
    # It checks no slot from above.
    slots = call.slots.long()
    slots = slots.where(slots < call.cache.slots, -1)
    pages = data.view(-1, layout.page_tokens, layout.token_bytes)
    more = {"preshuffle": True} if layout.order == "preshuffled" else {}
    scale_format = "ue8m0" if layout.pow2_scale else "fp32"
    store = aiter_function(capabilities(data.device), STORE)
    with torch.cuda.device_of(data):
        store(keys, pages, slots, layout.head_dim, scale_format, **more)


BACKEND = Backend("aiter", _run, _refuses, _declines, rank=RANK, adapts=_adapts, reads=READS)
