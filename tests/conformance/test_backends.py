"""Every backend of every op over every case of its contract, judged by the loop oracles."""

from __future__ import annotations

import importlib

import torch
from conformance_suite import CONTRACTS, DEVICE, arguments, call, every_case, expect_equal

from dsa_exec.dispatch.registry import backends, op_names

RUNS = 3 if DEVICE.type == "cpu" else 20
"""Under the interpreter of the CPU a run takes a thousand times longer, and there is nothing that could race."""


@every_case
def test_agrees_with_the_oracle(op, backend, case):
    """The result is the oracle's, within the contract's tolerance, though fresh memory was full of NaN."""
    got = call(op, backend, case)
    oracle = importlib.import_module(f"oracles.{op}").oracle
    wanted = oracle(**arguments(op, case, torch.device("cpu")))
    accelerated = backend != "torch" and DEVICE.type != "cpu"
    assert CONTRACTS[op].judge(case, got, wanted, accelerated=accelerated, backend=backend) == []


@every_case
def test_is_the_same_every_time(op, backend, case):
    """Runs on the same arguments are equal to the bit."""
    first, *others = [call(op, backend, case) for _ in range(RUNS)]
    for other in others:
        expect_equal(other, first)


def test_every_op_has_a_contract_an_oracle_and_a_specification():
    """An op without cases, oracle or on_torch would pass unseen."""
    for op in op_names():
        assert CONTRACTS[op].op == op
        assert len(CONTRACTS[op].cases) >= 5
        assert "torch" in backends(op)
        assert importlib.import_module(f"oracles.{op}").oracle
