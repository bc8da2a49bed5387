"""On a GPU: other streams, and CUDA graphs that are captured once and replayed on other values."""

from __future__ import annotations

import pytest
import torch
from conformance_suite import CONTRACTS, arguments, call, every_case, expect_equal, poison, returned_by, tensors_in

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty"),  # of calls that have nothing to do
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def fill(args, values) -> None:
    """Copy the values of other arguments of the same shapes into these, in place."""
    for tensor, value in zip(tensors_in(args), tensors_in(values), strict=True):
        tensor.copy_(value)


@every_case
def test_runs_on_the_current_stream(op, backend, case):
    """Arguments that are written late on another stream are not read before that."""
    wanted = call(op, backend, case)
    args, values = arguments(op, case), arguments(op, case)
    for tensor in tensors_in(args):
        poison(tensor)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        if args.get("total_tokens", 0) is not None:
            torch.cuda._sleep(5_000_000)
        fill(args, values)
        got = CONTRACTS[op].result(args, returned_by(op, backend, case, args))
    stream.synchronize()
    expect_equal(got, wanted)


@every_case
def test_a_captured_graph_follows_its_arguments(op, backend, case):
    """A replay on other values of the same shapes gives what a call gives."""
    args = arguments(op, case)
    if args.get("total_tokens", 0) is None:
        pytest.skip("not applicable: total_tokens is read from the device where it is not given, which no graph can")
    others = [arguments(op, case, seed=seed) for seed in ("", " again")]
    if any(left.shape != right.shape for left, right in zip(tensors_in(others[0]), tensors_in(others[1]), strict=True)):
        pytest.skip("not applicable: the case draws its shapes")
    returned_by(op, backend, case, args)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        returned = returned_by(op, backend, case, args)
    for values in others:
        fill(args, values)
        graph.replay()
        got = CONTRACTS[op].result(args, returned)
        expect_equal(got, CONTRACTS[op].result(values, returned_by(op, backend, case, values)))
