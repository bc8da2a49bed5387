"""`index_select` of gathered keys in Gluon for Hopper, scores and selection in one: the logits are never in memory."""

from __future__ import annotations

import torch

from dsa_config import settings
from dsa_config.declarations.backends import AUTO
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.hopper_indexer_inputs import refuses_queries_and_keys
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_hopper, refuses_without_hopper
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.index_select import Call, GatheredKeys
from dsa_exec.ops.index_select.hopper_launch import HopperLaunch, hopper_launch


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_hopper(hw) or refuses_gradients(call)) is not None:
        return sentence
    if (sentence := call.refuses_scores) is not None:
        return sentence
    if not isinstance(call.keys, GatheredKeys):
        return "keys in the cache, this kernel takes gathered ones"
    return refuses_queries_and_keys(call.q, call.keys.keys) or _launch().refuses(call.k)


def _declines(call: Call, hw: Capabilities) -> str | None:
    if (sentence := declines_off_hopper(hw)) is not None:
        return sentence
    if not isinstance(call.keys, GatheredKeys):
        return "for gathered keys, these are in the cache"
    # Who names a backend of what this kernel takes the place of wants that one, to the bit.
    for name, chosen in (("mqa_logits_backend", call.logits_backend), ("topk_backend", settings.topk_backend)):
        if chosen != AUTO:
            return f"{name} names {chosen}, which this kernel would take the place of"
    return None if call.scarce else "slower than logits and topk apart where there is room for the logits"


def _run(call: Call) -> torch.Tensor:
    assert isinstance(call.keys, GatheredKeys)
    if call.q.shape[0] == 0 or call.width == 0:
        return call.q.new_full((call.q.shape[0], call.k), -1, dtype=torch.int32)
    from dsa_exec.ops.index_select.kernels.hopper import select_of_gathered

    with torch.cuda.device_of(call.q):
        return select_of_gathered(call, call.keys, _launch())


def _launch() -> HopperLaunch:
    return chosen_launch("index_select", "gluon", hopper_launch())


def _footprint(call: Call, _: Capabilities) -> Footprint:
    launch, (rows, heads) = _launch(), call.q.shape[:2]
    programs = launch.programs_for(launch.groups(rows, heads))
    return Footprint(fixed_bytes=launch.candidate_bytes(programs, heads) + 4, row_bytes=call.k * 4)


BACKEND = Backend(
    "gluon", _run, _refuses, _declines, rank=10, reads=("kernel_launch", "topk_backend"), footprint=_footprint
)
