"""The flash_mla backends under the whole contracts of their ops, on hardware and a library that are made up."""

from __future__ import annotations

import importlib

import pytest
import torch
from conformance_suite import CONTRACTS, arguments, expect_equal
from fakes.flash_mla import FakeFlashMla

from dsa_config import settings
from dsa_exec import record_calls
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import assumed
from dsa_exec.dispatch.registry import op_function
from dsa_exec.ops.sparse_mla_decode.schedules import forget_schedules

CPU = torch.device("cpu")
OPS = ("sparse_mla_prefill", "sparse_mla_decode")
EVERY = [pytest.param(op, it, id=f"{op}-{it.name}") for op in OPS for it in CONTRACTS[op].cases]
HEADS = (1, 8, 12, 16, 24, 64, 96, 128)


@pytest.fixture(autouse=True)
def _no_schedules():
    forget_schedules()
    yield
    forget_schedules()


def attended(op, case_, fake, args):
    """What the op returns by flash_mla, as its contract judges it; None if it refuses the case."""
    try:
        with assumed(fake.capabilities()), settings.override(**{f"{op}_backend": "flash_mla"}, **case_.settings):
            return CONTRACTS[op].result(args, op_function(op)(**args))
    except UnsupportedCall as refusal:
        ((backend, sentence),) = refusal.refusals
        assert backend == "flash_mla"
        assert "bf16" not in case_.name or "cache has format model" in sentence, sentence
        return None


@pytest.mark.parametrize(("op", "case_"), EVERY)
@pytest.mark.parametrize(("arch", "build"), [("sm90", "sgl"), ("sm90", "upstream"), ("sm100", "sgl")])
def test_agrees_with_the_oracle(op, case_, arch, build):
    """Every bf16 case is right, whatever the library leaves unspecified; the others are refused in words."""
    fake = FakeFlashMla(arch, build)
    got = attended(op, case_, fake, arguments(op, case_, CPU))
    if got is None:
        assert fake.calls == []
        return
    wanted = importlib.import_module(f"oracles.{op}").oracle(**arguments(op, case_, CPU))
    assert CONTRACTS[op].judge(case_, got, wanted, accelerated=True, backend="flash_mla") == []
    again = attended(op, case_, fake, arguments(op, case_, CPU))
    expect_equal(again, got)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("heads", HEADS)
def test_T30_every_number_of_heads_is_padded_and_sliced(op, heads):
    """T30: 12, 24, 48 and 96 heads do not divide 64 or 128, and run all the same; the decision says what was done."""
    case_ = next(it for it in CONTRACTS[op].cases if it.name.startswith("bf16") and heads_of(op, it) == heads)
    fake = FakeFlashMla()
    with record_calls() as trace:
        got = attended(op, case_, fake, arguments(op, case_, CPU))
    taken = 64 if heads <= 64 else 128
    assert [call["q"].shape[-2] for call in fake.calls] == [taken]
    assert got["out"].shape[1:] == (heads, 512)
    assert got["lse"].shape[1:] == (heads,)
    assert got["out"].is_contiguous()
    ((decision, _),) = trace.decisions.values()
    words = {1: "1 head padded to 64", 64: None, 128: None}.get(heads, f"{heads} heads padded to {taken}")
    assert decision.why == f"{op}_backend names it" + (f"; {words}" if words else "")


def heads_of(op, case_):
    return arguments(op, case_, CPU)["q"].shape[1]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("numbers", [(-5, 2**31 - 1, -(2**31), 7, 10**6), (-1, -2, 191, 192, 90)])
def test_no_index_that_names_no_row_reaches_the_library(op, numbers):
    """It would read out of bounds: in decode it knows -1 alone. The result is the specification's."""
    case_ = next(it for it in CONTRACTS[op].cases if it.name == "bf16")
    name = {"sparse_mla_prefill": "indices", "sparse_mla_decode": "slots"}[op]
    args = arguments(op, case_, CPU)
    hostile = torch.tensor(numbers, dtype=torch.int32).repeat(args[name].numel())[: args[name].numel()]
    args[name] = hostile.view_as(args[name])
    got = attended(op, case_, FakeFlashMla(), args)
    with settings.override(**{f"{op}_backend": "torch"}):
        wanted = CONTRACTS[op].result(args, op_function(op)(**args))
    assert CONTRACTS[op].judge(case_, got, wanted, accelerated=True, backend="flash_mla") == []


def test_what_one_backend_rounds_is_allowed_to_it_alone():
    """The contract is wider for flash_mla, whose decode kernel makes bf16 of scales; for the others it is not."""
    contract = CONTRACTS["sparse_mla_decode"]
    case_ = next(it for it in contract.cases if it.name == "bf16, one slot")
    wanted = {"lse": torch.full((1, 1), 1.0)}
    off = {"lse": torch.full((1, 1), 1.003)}
    assert contract.judge(case_, off, wanted, accelerated=True, backend="flash_mla") == []
    (problem,) = contract.judge(case_, off, wanted, accelerated=True, backend="gluon")
    assert problem.startswith("lse: off by 0.003")
