"""What every conformance test needs: the cases, their arguments, and a call of one backend."""

from __future__ import annotations

import dataclasses
import importlib
import zlib
from collections.abc import Iterator

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
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def every_case(test):
    """Run a test over every (op, backend, case)."""
    return pytest.mark.parametrize(("op", "backend", "case"), EVERY_CASE)(test)


def arguments(op, case, device=DEVICE, seed=""):
    """The case's arguments, the same every time: the generator is seeded by the names."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{op} {case.name}{seed}".encode()))
    return case.make(generator, device)


def returned_by(op, backend, case, args):
    """What the op's public function returns with one backend; the test is skipped if that refuses, in its words."""
    asked = {f"{op}_backend": backend, **({"use_aiter": True} if backend == "aiter" else {})}
    try:
        with settings.override(**asked, **case.settings):
            return op_function(op)(**args)
    except UnsupportedCall as refusal:
        assert backend != "torch", "the specification refuses nothing"
        pytest.skip(str(refusal))


def call(op, backend, case, device=DEVICE):
    """What the contract judges of one call of one backend."""
    args = arguments(op, case, device)
    return CONTRACTS[op].result(args, returned_by(op, backend, case, args))


def tensors_in(value) -> Iterator[torch.Tensor]:
    """Every tensor in some arguments, those of caches and of other dataclasses among them, always in the same order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def poison(tensor: torch.Tensor) -> torch.Tensor:
    """Fill a tensor with what must not be taken for a result: NaN in every float format, and a huge integer."""
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1:
        return tensor.fill_(torch.nan)
    if tensor.dtype is torch.bool:
        return tensor.fill_(True)
    if tensor.dtype.is_floating_point or tensor.dtype is torch.uint8:
        tensor.view(torch.uint8).fill_(0xFF)
        return tensor
    return tensor.fill_(torch.iinfo(tensor.dtype).max // 3)


def expect_equal(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Two results are the same to the bit; NaN is where NaN was."""
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")
