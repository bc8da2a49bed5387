"""Every backend of every op over every case of its contract, judged by the loop oracles."""

from __future__ import annotations

import importlib
import zlib

import pytest
import torch

from dsa_config import settings
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.dispatch.registry import backends, op_function, op_names

CONTRACTS = {op: importlib.import_module(f"dsa_exec.ops.{op}.contract").CONTRACT for op in op_names()}
EVERY_CASE = [
    pytest.param(op, backend, case, id=f"{op}-{backend}-{case.name}")
    for op, contract in CONTRACTS.items()
    for backend in backends(op)
    for case in contract.cases
]


def arguments(op, case, device):
    """The case's arguments, the same every time: the generator is seeded by the names."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{op} {case.name}".encode()))
    return case.make(generator, device)


def call(op, backend, case, device):
    args = arguments(op, case, device)
    with settings.override(**{f"{op}_backend": backend}, **case.settings):
        returned = op_function(op)(**args)
    return CONTRACTS[op].result(args, returned)


@pytest.fixture
def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(("op", "backend", "case"), EVERY_CASE)
def test_agrees_with_the_oracle(op, backend, case, device):
    """The result is the oracle's, within the contract's tolerance."""
    try:
        got = call(op, backend, case, device)
    except UnsupportedCall as refusal:
        assert backend != "torch", "the specification refuses nothing"
        pytest.skip(str(refusal))
    oracle = importlib.import_module(f"oracles.{op}").oracle
    wanted = oracle(**arguments(op, case, torch.device("cpu")))
    accelerated = backend != "torch" and device.type != "cpu"
    assert CONTRACTS[op].judge(case, got, wanted, accelerated=accelerated) == []


@pytest.mark.parametrize(("op", "backend", "case"), EVERY_CASE)
def test_is_the_same_every_time(op, backend, case, device):
    """Three runs on the same arguments are equal to the bit."""
    try:
        first, *others = [call(op, backend, case, device) for _ in range(3)]
    except UnsupportedCall as refusal:
        assert backend != "torch", "the specification refuses nothing"
        pytest.skip(str(refusal))
    for other in others:
        for name, tensor in first.items():
            assert torch.equal(tensor, other[name]), name


def test_every_op_has_a_contract_an_oracle_and_a_specification():
    """An op without cases, oracle or on_torch would pass unseen."""
    for op in op_names():
        assert CONTRACTS[op].op == op
        assert len(CONTRACTS[op].cases) >= 5
        assert "torch" in backends(op)
        assert importlib.import_module(f"oracles.{op}").oracle
