"""`index_select` made of the logits op and `topk`. The backends of those two are their own settings."""

from __future__ import annotations

import contextlib
import functools
import operator
from typing import Any

import torch

from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.logits_workspace import LOGIT_BYTES, workspace_row_bytes
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.dispatch.registry import backends, op_call, op_function
from dsa_exec.dispatch.select import weigh
from dsa_exec.layouts.views import SlotMap
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.index_select import Call, GatheredKeys, PagedKeys

PICK_BYTES = 72
"""What a picked position takes at the worst moment where it becomes a slot in a step of its own."""

NUMBERS_BYTES = 24
"""What lengths and requests of a row take."""


def _run(call: Call) -> torch.Tensor:
    if isinstance(call.keys, GatheredKeys):
        return _gathered(call, call.keys)
    return _paged(call, call.keys)


def _gathered(call: Call, keys: GatheredKeys) -> torch.Tensor:
    mqa_logits, topk = op_function("mqa_logits"), op_function("topk")
    out = call.workspace.logits(call.q.shape[0], call.width)
    inputs = call.q, keys.keys, keys.scales, call.head_weights, keys.starts, keys.ends
    logits = mqa_logits(*inputs, clean=False, out=out)
    lengths = torch.maximum(keys.ends, keys.starts) - keys.starts  # a window that ends far before it begins is empty
    picked: torch.Tensor = topk(logits, lengths, call.k, row_starts=keys.starts)
    return _told(call, logits, picked, keys.starts) if call.scored else picked


def _paged(call: Call, keys: PagedKeys) -> torch.Tensor:
    paged_mqa_logits, topk = op_function("paged_mqa_logits"), op_function("topk")
    requests, next_n = call.q.shape[:2]
    lens, table = keys.context_lens, keys.page_table
    row_lens = lens.flatten().contiguous()  # of one column, a part of wider rows would stay one
    out = call.workspace.logits(requests * next_n, call.width)
    inputs = call.q, keys.cache, call.head_weights, lens, table, call.width
    logits = paged_mqa_logits(*inputs, clean=False, out=out, schedule=keys.schedule)
    if call.scored:
        return _told(call, logits, topk(logits, row_lens, call.k), None)
    slot_map = SlotMap(table, keys.cache.layout.page_tokens, None, keys.cache.slots, rows_per_request=next_n)
    if call.fuse_topk:
        picked: torch.Tensor = topk(logits, row_lens, call.k, slot_map=slot_map)
        return picked
    return slot_map.slots(topk(logits, row_lens, call.k)).to(torch.int32)


def _told(call: Call, logits: torch.Tensor, picked: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor:
    told: torch.Tensor = op_function("topk_candidates")(logits, picked, call.key_part, row_starts=starts)
    return told


def _footprint(call: Call, hw: Capabilities) -> Footprint:
    """What the two ops' own backends tell, by the settings as of now, and what is allocated between them."""
    # Backends may refuse by the number of rows, and chunks have fewer: where that leads to others, all are counted.
    found = []
    for units in (call.units, 1):
        part = call.part(slice(0, min(units, call.units)))
        with contextlib.suppress(UnsupportedCall):  # which is told when the part runs
            if (footprint := _of_part(part, hw)) not in found:
                found.append(footprint)
    return functools.reduce(operator.add, found, Footprint(row_bytes=NUMBERS_BYTES))


def _of_part(call: Call, hw: Capabilities) -> Footprint:
    rows, width = call.head_weights.shape[0], call.width
    logits = torch.empty_strided((rows, width), (workspace_row_bytes(width) // LOGIT_BYTES, 1), device="meta")
    slots = Footprint()
    if isinstance(call.keys, GatheredKeys):
        keys = call.keys
        inputs = call.q, keys.keys, keys.scales, call.head_weights, keys.starts, keys.ends
        scoring = _footprint_of("mqa_logits", hw, *inputs, False, None)
        picking = _footprint_of("topk", hw, logits, keys.starts, call.k, keys.starts, None)
    else:
        lens, table, cache = call.keys.context_lens, call.keys.page_table, call.keys.cache
        paged = call.q, cache, call.head_weights, lens, table, width
        scoring = _footprint_of("paged_mqa_logits", hw, *paged, False, None)
        parts = table, cache.layout.page_tokens, None, cache.slots, lens.shape[1]
        slot_map = SlotMap(*parts) if call.fuse_topk and not call.scored else None
        picking = _footprint_of("topk", hw, logits, lens.flatten(), call.k, None, slot_map)
        if not call.fuse_topk and not call.scored:
            slots = Footprint(row_bytes=call.k * PICK_BYTES)
    if call.scored:
        picked = torch.empty(rows, call.k, dtype=torch.int32, device="meta")
        slots = _footprint_of("topk_candidates", hw, logits, picked, None, call.key_part)
    if not scoring.own_row_bytes:
        scoring += Footprint(workspace_row_bytes=workspace_row_bytes(width))
    return scoring + picking + slots


def _footprint_of(op: str, hw: Capabilities, *inputs: Any) -> Footprint:
    call = op_call(op)(*inputs)
    return weigh(op, call, hw).backend.footprint(call, hw)


def _reads() -> tuple[str, ...]:
    """Settings that the parts' backends are chosen by, but for the one that the call has."""
    parts = ("mqa_logits", "paged_mqa_logits", "topk", "topk_candidates")
    names = {name for op in parts for backend in backends(op).values() for name in backend.reads}
    return ("topk_backend", "topk_candidates_backend", *sorted(names))


BACKEND = Backend("torch", _run, rank=LAST, reads=_reads(), footprint=_footprint)
