"""deep_gemm over the whole contracts of both logits ops, as a library that checks what it is given."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch
from conformance_suite import CONTRACTS, arguments, expect_equal, poison
from fakes.deep_gemm import machine

from dsa_config import settings
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import assumed
from dsa_exec.dispatch.registry import op_function
from dsa_exec.ops.paged_mqa_logits.schedule import paged_schedule

CPU = torch.device("cpu")
MACHINES = {
    "sm90, generation 1": ("sm90", 1),
    "sm90, generation 2": ("sm90", 2),
    "sm100, generation 1": ("sm100", 1),
    "sm120, generation 2": ("sm120", 2),
}
NOT_E4M3 = {
    "mqa_logits": {
        "nothing quantised",
        "bf16",
        "f16",
        "200 channels",
        "40 channels, bf16",
        "NaN that no row sees, bf16",
    },
    "paged_mqa_logits": {
        "pages of one token",
        "pages of 48",
        "preshuffled",
        "preshuffled pages of 16",
        "nothing quantised",
        "nothing quantised, bf16",
        "queries of another dtype",
        "40 channels",
        "200 channels",
    },
}
OPS = tuple(NOT_E4M3)
EVERY = [
    pytest.param(op, case, *where, id=f"{op}-{name}-{case.name}")
    for op in OPS
    for name, where in MACHINES.items()
    for case in CONTRACTS[op].cases
]


@pytest.fixture(autouse=True)
def _fresh_memory_is_poisoned(monkeypatch):
    for home, name in ((torch, "empty"), (torch.Tensor, "new_empty")):
        make = getattr(home, name)
        monkeypatch.setattr(home, name, lambda *args, _make=make, **kwargs: poison(_make(*args, **kwargs)))


def result(op, case, hw, **changes):
    """What the contract judges of the case's call by deep_gemm on a machine; None if it refuses."""
    args = {**arguments(op, case, CPU), **changes}
    with assumed(hw), settings.override(**{f"{op}_backend": "deep_gemm"}, **case.settings):
        try:
            return CONTRACTS[op].result(args, op_function(op)(**args))
        except UnsupportedCall:
            return None


@pytest.mark.parametrize(("op", "case", "arch", "generation"), EVERY)
def test_agrees_with_the_oracle(op, case, arch, generation):
    """Every case that is e4m3 in plain pages of 64 is right, though the library checks nothing and leaves NaN."""
    got = result(op, case, machine(arch, generation)[0])
    beyond = case.name in NOT_E4M3[op] or (case.name == "128 heads" and arch != "sm100")
    assert (got is None) == beyond
    if got is not None:
        wanted = importlib.import_module(f"oracles.{op}").oracle(**arguments(op, case, CPU))
        assert CONTRACTS[op].judge(case, got, wanted) == []


@pytest.mark.parametrize("case", CONTRACTS["paged_mqa_logits"].cases, ids=lambda case: case.name)
@pytest.mark.parametrize("cut_to", ["the cache", "nothing"])
def test_agrees_with_the_oracle_on_native_rows(case, cut_to):
    """With a schedule of native rows, whose lengths are each request's full one, every row sees what it should."""
    hw, _ = machine("sm100")
    args = arguments("paged_mqa_logits", case, CPU)
    pages = args["cache"].data.shape[0] if cut_to == "the cache" else 0
    table, lens = args["page_table"], args["context_lens"]
    schedule = paged_schedule("target_verify", lens, table, hw=hw, cache_pages=pages)
    assert schedule.form == ("native" if lens.shape[0] and lens.shape[1] > 1 else "expanded")
    got = result("paged_mqa_logits", case, hw, schedule=schedule)
    if case.name not in NOT_E4M3["paged_mqa_logits"]:
        assert got is not None
        wanted = importlib.import_module("oracles.paged_mqa_logits").oracle(**args)
        assert CONTRACTS["paged_mqa_logits"].judge(case, got, wanted) == []


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("op", OPS)
def test_in_pieces_it_is_the_same(op, generation, monkeypatch):
    """With room for a row or two beside `out`, or none at all, the logits are those of one call."""
    cases = [case for case in CONTRACTS[op].cases if "into" in case.name]
    assert len(cases) >= 2
    hw, library = machine("sm90", generation)
    for case in cases:
        whole = result(op, case, hw)
        library.calls.clear()
        monkeypatch.setattr(f"dsa_exec.ops.{op}.on_deep_gemm.SCRATCH_BYTES", 1)
        monkeypatch.setattr("dsa_exec.ops.mqa_logits.on_deep_gemm.BLOCK_ROWS", 1)
        expect_equal(result(op, case, hw), whole)
        monkeypatch.undo()
        args = arguments(op, case, CPU)
        names = {call.name for call in library.calls} - {"get_paged_mqa_logits_metadata"}
        assert [len(library.named(name)) for name in names] == [args["q"].shape[0]]


@pytest.mark.parametrize("gap", [16, 3])
@pytest.mark.parametrize("name", ["first", "one row"])
@pytest.mark.parametrize("op", OPS)
def test_takes_queries_and_weights_of_any_stride(op, name, gap):
    """The library would read weights of another row stride as if rows lay side by side: it is given copies.

    One row is contiguous for torch whatever its stride is; an H100 refuses a stride that is no multiple of 16 bytes.
    """
    case = next(it for it in CONTRACTS[op].cases if name in ("first", it.name))
    hw, _ = machine("sm90")
    apart = {}
    for name in ("q", "head_weights", *(("page_table", "context_lens") if op == "paged_mqa_logits" else ())):
        tensor = arguments(op, case, CPU)[name]
        wide = poison(tensor.new_empty(*tensor.shape[:-1], tensor.shape[-1] + gap))
        apart[name] = wide[..., : tensor.shape[-1]]
        apart[name].copy_(tensor)
    expect_equal(result(op, case, hw, **apart), result(op, case, hw))


BIG, SMALL = 2**31 - 1, -(2**31)


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize(
    ("op", "name", "place", "numbers"),
    [
        ("mqa_logits", "ragged", "starts", (-5, 3, BIG, SMALL, 13)),
        ("mqa_logits", "ragged", "ends", (-5, 10**6, BIG, SMALL, 9)),
        ("paged_mqa_logits", "decode", "context_lens", (-5, BIG, 70)),
        ("paged_mqa_logits", "page edges", "context_lens", (BIG, 128, 66)),
        ("paged_mqa_logits", "three rows a request", "page_table", (-5, BIG, SMALL, 2)),
    ],
)
def test_hostile_numbers_do_not_reach_the_library(op, name, place, numbers, generation, monkeypatch):
    """Unchecked, as on an accelerator: windows, lengths and pages out of range mean what the specification says."""
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    hw, _ = machine("sm90", generation)
    case = next(case for case in CONTRACTS[op].cases if case.name == name)
    tensor = arguments(op, case, CPU)[place]
    hostile = torch.tensor(numbers, dtype=torch.int32).repeat(tensor.numel())[: tensor.numel()].view(tensor.shape)
    got = result(op, case, hw, **{place: hostile})
    args = {**arguments(op, case, CPU), place: hostile}
    with settings.override(**{f"{op}_backend": "torch"}):
        wanted = CONTRACTS[op].result(args, op_function(op)(**args))
    assert CONTRACTS[op].judge(case, got, wanted) == []


def test_T18_a_selection_reads_no_cell_that_the_library_left_undefined():
    """T18: uncleaned logits hold NaN outside their rows' windows; the selection is the specification's all the same."""
    for case in CONTRACTS["index_select"].cases:
        args = arguments("index_select", case, CPU)
        chosen = {"topk_backend": "torch", **case.settings}
        with settings.override(mqa_logits_backend="torch", paged_mqa_logits_backend="torch", **chosen):
            wanted = op_function("index_select")(**args).indices
        if case.name == "nothing quantised":
            continue
        names = {"mqa_logits_backend": "deep_gemm", "paged_mqa_logits_backend": "deep_gemm"}
        for generation in (1, 2):
            with assumed(machine("sm90", generation)[0]), settings.override(**names, **chosen):
                assert torch.equal(op_function("index_select")(**args).indices, wanted), case.name


def test_the_cases_that_are_refused_are_cases():
    """A case that is renamed is not expected to be refused under its old name."""
    for op, names in NOT_E4M3.items():
        assert names <= {case.name for case in CONTRACTS[op].cases}
        assert dataclasses.is_dataclass(CONTRACTS[op])
