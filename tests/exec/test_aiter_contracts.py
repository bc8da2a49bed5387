"""aiter over the whole contracts of its five ops, as a library that checks what it is given, on gfx942 and gfx950."""

from __future__ import annotations

import dataclasses
import functools
import importlib

import pytest
import torch
from conformance.test_unchecked import HOSTILE, with_numbers
from conformance_suite import CONTRACTS, arguments, expect_equal, poison
from fakes.aiter import machine

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.fnuz import without_negative_zeros
from dsa_exec.core.hardware import assumed
from dsa_exec.dispatch.registry import op_function

CPU = torch.device("cpu")
NOT_E4M3 = {"nothing quantised", "bf16", "f16", "40 channels, bf16", "NaN that no row sees, bf16"}


def is_model_format(args) -> bool:
    return args["cache"].layout.format == "model"


def is_plain_of_many(args) -> bool:
    layout = args["cache"].layout
    return layout.order == "plain" and layout.page_tokens != 1


REFUSED = {
    "index_store": lambda case, args: is_model_format(args) or args["cache"].layout.unsigned_zero,
    "index_gather": lambda case, args: is_model_format(args),
    "mqa_logits": lambda case, args: case.name in NOT_E4M3 | {"200 channels", "128 heads"},
    "paged_mqa_logits": lambda case, args: is_model_format(args) or is_plain_of_many(args) or args["q"].shape[2] > 64,
    "topk": lambda case, args: False,
}
"""What aiter refuses of each op, wherever it runs."""

EVERY = [pytest.param(op, case, id=f"{op}-{case.name}") for op in REFUSED for case in CONTRACTS[op].cases]
PAGED = CONTRACTS["paged_mqa_logits"]


@pytest.fixture(autouse=True)
def _fresh_memory_is_poisoned(monkeypatch):
    for home, name in ((torch, "empty"), (torch.Tensor, "new_empty")):
        make = getattr(home, name)
        monkeypatch.setattr(home, name, lambda *args, _make=make, **kwargs: poison(_make(*args, **kwargs)))


def made_for(arch, op, case):
    """The case's arguments; a cache that is read is as one that was allocated on the architecture: no -0 on gfx942."""
    args = arguments(op, case, CPU)
    cache = args.get("cache")
    if cache is None or op == "index_store" or arch != "gfx942" or is_model_format(args):
        return args
    layout, data = dataclasses.replace(cache.layout, unsigned_zero=True), cache.data.clone()
    data[:, : layout.scales_offset_bytes] = without_negative_zeros(data[:, : layout.scales_offset_bytes])
    return {**args, "cache": IndexKCache(data, layout)}


def result(op, case, hw, args, *, backend="aiter"):
    """What the contract judges of a call on a machine; None if aiter refuses."""
    with assumed(hw), settings.override(**{f"{op}_backend": backend}, use_aiter=True, **case.settings):
        try:
            return CONTRACTS[op].result(args, op_function(op)(**args))
        except UnsupportedCall:
            return None


@functools.cache
def wanted(op, case_name):
    """What the oracle says of a case; that a key holds 0 for -0 changes nothing."""
    case = next(case for case in CONTRACTS[op].cases if case.name == case_name)
    return importlib.import_module(f"oracles.{op}").oracle(**arguments(op, case, CPU))


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize(("op", "case"), EVERY)
def test_agrees_with_the_oracle(op, case, arch):
    """Every case that aiter takes is right, though the library checks nothing and leaves NaN; others are refused."""
    args = made_for(arch, op, case)
    got = result(op, case, machine(arch)[0], args)
    assert (got is None) == (REFUSED[op](case, args) or (op == "index_store" and arch == "gfx942"))
    assert got is None or CONTRACTS[op].judge(case, got, wanted(op, case.name)) == []


@pytest.mark.parametrize(("op", "case"), EVERY)
def test_agrees_with_the_specification_on_another_release(op, case):
    """One that lacks parameters, or numbers picks from a row's window: what is taken is right."""
    build = "unknown" if op == "topk" else "0.1.9"
    args = made_for("gfx950", op, case)
    got = result(op, case, machine(build=build)[0], args)
    lacks = op.startswith("index") and args["cache"].layout.order == "preshuffled"
    assert (got is None) == (REFUSED[op](case, args) or lacks)
    if got is not None:
        same = result(op, case, machine(build=build)[0], made_for("gfx950", op, case), backend="torch")
        assert CONTRACTS[op].judge(case, got, same) == []


def relaid(cache, layout):
    """The tokens of a cache, slot by slot, in another layout; straight from the description of both."""
    old, new = cache.data.flatten(), torch.zeros(cache.slots * layout.token_bytes, dtype=torch.uint8)
    for slot in range(cache.slots):
        for channel in range(layout.head_dim):
            new[layout.key_byte(slot, channel)] = old[cache.layout.key_byte(slot, channel)]
        at, to = cache.layout.scale_byte(slot), layout.scale_byte(slot)
        new[to : to + 4] = old[at : at + 4]
    return IndexKCache(new.view(-1, layout.page_bytes), layout)


@functools.cache
def with_pages(arch, case_name, page_tokens, order):
    """A case's arguments with its keys in other pages, and a table that numbers those; each slot as it was."""
    case = next(case for case in PAGED.cases if case.name == case_name)
    args = made_for(arch, "paged_mqa_logits", case)
    cache, table = args["cache"], args["page_table"]
    ratio = cache.layout.page_tokens // page_tokens
    finer = table[:, :, None].long() * ratio + torch.arange(ratio)
    finer = finer.where((table >= 0)[:, :, None] & (finer < 2**31), -1).flatten(1).to(torch.int32)
    layout = dataclasses.replace(cache.layout, page_tokens=page_tokens, order=order)
    return {**args, "cache": relaid(cache, layout), "page_table": finer}


OF_64 = [
    case
    for case in PAGED.cases
    if (args := arguments("paged_mqa_logits", case, CPU))["cache"].layout.spec == "fp8/64/128/plain/1/0/0/0"
    and args["q"].shape[2] <= 64
]


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize(("page_tokens", "order"), [(64, "preshuffled"), (16, "preshuffled"), (1, "plain")])
@pytest.mark.parametrize("case", OF_64, ids=lambda case: case.name)
def test_t25_pages_as_rocm_has_them_score_alike(case, page_tokens, order, arch):
    """T25: the contract's plain cases of 64 tokens in preshuffled pages, and in pages of one under a longer table."""
    args = with_pages(arch, case.name, page_tokens, order)
    if "out" in args:
        args = {**args, "out": torch.full_like(args["out"], torch.nan)}
    got = result("paged_mqa_logits", case, machine(arch)[0], args)
    assert got is not None
    assert PAGED.judge(case, got, wanted("paged_mqa_logits", case.name)) == []


@pytest.mark.parametrize("op", ["mqa_logits", "paged_mqa_logits", "topk"])
def test_in_pieces_it_is_the_same(op, monkeypatch):
    """With room for one row of scratch at a time, results are those of one call."""
    names = {"into rows of another stride", "rows of another stride", "preshuffled", "three rows a request", "slots"}
    cases = [case for case in CONTRACTS[op].cases if case.name in names]
    assert cases
    for case in cases:
        hw, library = machine()
        if REFUSED[op](case, made_for("gfx950", op, case)):
            continue
        whole = result(op, case, hw, made_for("gfx950", op, case))
        in_one = len(library.calls)
        monkeypatch.setattr(f"dsa_exec.ops.{op}.on_aiter.SCRATCH_BYTES", 1)
        expect_equal(result(op, case, hw, made_for("gfx950", op, case)), whole)
        monkeypatch.undo()
        assert in_one == 1
        assert len(library.calls) - in_one == len(next(iter(whole.values())))


def test_more_than_two_gibibytes_of_logits_go_in_pieces(monkeypatch):
    """A result of its own is put together from calls whose logits are addressed with 32 bits, and is the same."""
    case = next(case for case in CONTRACTS["mqa_logits"].cases if case.name == "ragged")
    hw, library = machine()
    whole = result("mqa_logits", case, hw, arguments("mqa_logits", case, CPU))
    monkeypatch.setattr("dsa_exec.ops.mqa_logits.on_aiter.MOST_BYTES", 2 * 256 * 4)
    expect_equal(result("mqa_logits", case, hw, arguments("mqa_logits", case, CPU)), whole)
    assert [call["Q"].shape[0] for call in library.named("mqa_logits")] == [5, 2, 2, 1]


UNCHECKED = [
    pytest.param(op, name, place, numbers, id=f"{op}-{place}={numbers[0]}")
    for op, name, place, numbers in HOSTILE
    if op in REFUSED
]
IN_ROCM_PAGES = {"decode": "preshuffled", "three rows a request": "preshuffled", "ragged": "preshuffled"}


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize(("op", "name", "place", "numbers"), UNCHECKED)
def test_hostile_numbers_mean_what_the_specification_says(monkeypatch, op, name, place, numbers, arch):
    """Slots, pages, windows and lengths out of range, that nobody checked: nothing beyond memory, the right result."""
    if (op, arch) == ("index_store", "gfx942"):
        assert machine(arch)[0].arch == "gfx942"  # it refuses every call there
        return
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    monkeypatch.setattr(Arguments, "total", lambda _self, _lens, _name, given, **__: given)
    case = next(case for case in CONTRACTS[op].cases if case.name == name)

    def hostile():
        args = with_pages(arch, name, 64, "preshuffled") if op == "paged_mqa_logits" else made_for(arch, op, case)
        return with_numbers(args, place, numbers)

    got = result(op, case, machine(arch)[0], hostile())
    assert got is not None
    assert CONTRACTS[op].judge(case, got, result(op, case, machine(arch)[0], hostile(), backend="torch")) == []
