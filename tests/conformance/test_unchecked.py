"""Hostile numbers that nobody checked, as on an accelerator: the specification's results, and no illegal access."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conformance_suite import CONTRACTS, DEVICE, arguments, returned_by

from dsa_exec.core.checks import Arguments
from dsa_exec.dispatch.registry import backends

BIG, SMALL = 2**31 - 1, -(2**31)
HOSTILE = [
    ("index_store", "page edges", "slots", (-7, 10**6, BIG, 2**62, -(2**62), 3)),
    ("kv_store", "page edges", "slots", (-7, 10**6, BIG, 2**62, -(2**62), 3)),
    ("index_gather", "ragged", "page_table", (-5, BIG, SMALL, 99, 1)),
    ("kv_gather", "ragged", "page_table", (-5, BIG, SMALL, 99, 1)),
    ("index_gather", "ragged", "seq_lens", (-3, 500, 70)),
    ("index_gather", "ragged", "seq_lens", (BIG, 2, SMALL)),
    ("kv_gather", "ragged", "seq_lens", (-3, 500, 70)),
    ("kv_gather", "ragged", "seq_lens", (BIG, 2, SMALL)),
    ("mqa_logits", "ragged", "starts", (-5, 3, BIG, SMALL, 13)),
    ("mqa_logits", "ragged", "ends", (-5, 10**6, BIG, SMALL, 9)),
    ("paged_mqa_logits", "decode", "context_lens", (-5, BIG, 70)),
    ("paged_mqa_logits", "decode", "context_lens", (SMALL, 10**6, 0)),
    ("paged_mqa_logits", "three rows a request", "page_table", (-5, BIG, SMALL, 2)),
    ("topk", "windows", "row_starts", (-5, BIG, 10**6, SMALL)),
    ("topk", "windows", "lengths", (BIG, SMALL, -1, 10**6)),
    ("topk", "slots", "slot_map.request_of_row", (-1, 99, 1, BIG, SMALL)),
    ("topk", "slots", "slot_map.page_table", (-1, BIG, SMALL, 2**27, 3)),
    ("index_select", "ragged", "keys.starts", (-5, BIG, 3, SMALL)),
    ("index_select", "ragged", "keys.ends", (-5, BIG, 60, SMALL)),
    ("index_select", "decode", "keys.context_lens", (-5, BIG, SMALL, 60)),
    ("dense_mla_prefill", "ragged", "starts", (-5, 3, BIG, SMALL, 13)),
    ("dense_mla_prefill", "ragged", "ends", (-5, 10**6, BIG, SMALL, 9)),
    ("sparse_mla_prefill", "ordinary", "indices", (-5, BIG, SMALL, 7, 10**6)),
    ("sparse_mla_decode", "ordinary", "slots", (-5, BIG, SMALL, 7, 10**6)),
]
EVERY = [
    pytest.param(op, backend, case, place, numbers, id=f"{op}-{backend}-{place}={numbers[0]}")
    for op, case, place, numbers in HOSTILE
    for backend in backends(op)
]


def with_numbers(value, place: str, numbers):
    """The arguments with other numbers in one tensor: as many as it has, over and over."""
    first, _, rest = place.partition(".")
    part = value[first] if isinstance(value, dict) else getattr(value, first)
    if rest:
        changed = with_numbers(part, rest, numbers)
    else:
        info = torch.iinfo(part.dtype)
        fitting = [number for number in numbers if info.min <= number <= info.max]
        repeated = torch.tensor(fitting, dtype=part.dtype).repeat(part.numel() + 1)[: part.numel()]
        changed = repeated.reshape(part.shape).to(part.device)
    return {**value, first: changed} if isinstance(value, dict) else dataclasses.replace(value, **{first: changed})


@pytest.mark.parametrize(("op", "backend", "name", "place", "numbers"), EVERY)
def test_hostile_numbers_mean_what_the_specification_says(monkeypatch, op, backend, name, place, numbers):
    """Slots, pages, windows and lengths out of range give -1, zeros, -inf or nothing, whichever backend runs."""
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    monkeypatch.setattr(Arguments, "total", lambda _self, _lens, _name, given, **__: given)
    contract = CONTRACTS[op]
    case = next(case for case in contract.cases if case.name == name)
    results = []
    for runner in (backend, "torch"):
        args = with_numbers(arguments(op, case), place, numbers)
        results.append(contract.result(args, returned_by(op, runner, case, args)))
    accelerated = backend != "torch" and DEVICE.type != "cpu"
    assert contract.judge(case, results[0], results[1], accelerated=accelerated, backend=backend) == []
