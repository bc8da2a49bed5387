"""Ops within torch.compile and torch.export: one node each, which follows the settings when it runs."""

from __future__ import annotations

import pytest
import torch
from conformance_suite import CONTRACTS, arguments, expect_equal

from dsa_config import settings
from dsa_exec import record_calls, topk
from dsa_exec.core.errors import ArgumentError
from dsa_exec.dispatch.registry import op_function

CASES = [
    pytest.param(op, case, id=f"{op}-{case.name}")
    for op, contract in CONTRACTS.items()
    for case in contract.cases
    if not case.settings and case.name != "total not given"
]
LOGITS, LENGTHS = torch.tensor([[1.0, 3.0, 2.0, 5.0]]), torch.tensor([4], dtype=torch.int32)


# torch 2.11 says so of its own code, on Python 3.12, when its compiler is first imported.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.device
@pytest.mark.parametrize(("op", "case"), CASES)
def test_a_compiled_call_is_the_call(op, case):
    """Every case of every contract, in a full graph: the promised shapes, and the values of the eager call."""
    args, eager = arguments(op, case), arguments(op, case)
    function = op_function(op)
    returned = torch.compile(lambda: function(**args), fullgraph=True, backend="aot_eager")()
    expect_equal(CONTRACTS[op].result(args, returned), CONTRACTS[op].result(eager, function(**eager)))


def test_torch_finds_nothing_wrong_with_a_node():
    """Schema, fake and aliasing of the three kinds of node: one result, two, and a tensor that is written to."""
    from dsa_exec.ops.kv_store.custom_op import kv_store_node
    from dsa_exec.ops.sparse_mla_prefill.custom_op import sparse_mla_prefill_node
    from dsa_exec.ops.topk.custom_op import topk_node

    checks = ("test_schema", "test_faketensor")
    q, kv = torch.randn(2, 4, 48), torch.randn(9, 48)
    indices = torch.tensor([[0, 3, -1], [8, 1, 2]], dtype=torch.int32)
    data, slots = torch.zeros(128, 656, dtype=torch.uint8), torch.tensor([3, 70])
    for node, args in (
        (topk_node, (LOGITS, LENGTHS, 2, None, None, 0, None, 0)),
        (sparse_mla_prefill_node, (q, kv, indices, 0.1, 32, None)),
        (kv_store_node, (data, "fp8/64/512/64/2", torch.randn(2, 512), torch.randn(2, 64), slots)),
    ):
        found = torch.library.opcheck(node, args, test_utils=checks)
        assert set(found.values()) == {"SUCCESS"}


def test_an_exported_program_has_the_op_by_its_name():
    """One node, `dsa.topk`, which runs."""

    class Picks(torch.nn.Module):
        def forward(self, logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return topk(logits, lengths, 2)

    program = torch.export.export(Picks(), (LOGITS, LENGTHS))
    assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [torch.ops.dsa.topk.default]
    assert program.module()(LOGITS, LENGTHS).tolist() == [[1, 3]]


def test_a_compiled_program_follows_the_backend_setting():
    """The node reads the settings when it runs: no recompilation, no stale choice."""
    compiled = torch.compile(lambda: topk(LOGITS, LENGTHS, 2), fullgraph=True, backend="aot_eager")
    compiled()
    with (
        record_calls() as trace,
        settings.override(topk_backend="torch"),
        torch._dynamo.config.patch(error_on_recompile=True),
    ):
        compiled()
    ((decision, _),) = trace.decisions.values()
    assert decision.choice == "torch"


def test_a_compiled_program_checks_its_arguments():
    """What eager code refuses is refused when the node runs, in the same words."""
    lengths = torch.tensor([4, 4], dtype=torch.int32)
    compiled = torch.compile(lambda: topk(LOGITS, lengths, 2), fullgraph=True, backend="aot_eager")
    with pytest.raises(ArgumentError, match="lengths has shape"):
        compiled()


def test_a_profile_has_ops_by_name_and_backend():
    """`dsa::topk (torch)`: what ran, and on which backend."""
    with settings.override(topk_backend="torch"), torch.profiler.profile() as profile:
        topk(LOGITS, LENGTHS, 2)
    assert "dsa::topk (torch)" in {event.key for event in profile.key_averages()}
