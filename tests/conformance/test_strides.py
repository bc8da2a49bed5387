"""Rows that do not lie side by side: every matrix argument as a part of a wider one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conformance_suite import CONTRACTS, arguments, call, every_case, expect_equal, poison, returned_by

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.ops.step_metadata import StepMetadata


def apart(value, gap: int):
    """The same values with `gap` poisoned elements behind each row.

    Caches keep their shape, which is their layout, and outputs of a step theirs, which other kernels read as one run.
    """
    if isinstance(value, IndexKCache | MlaCache | StepMetadata):
        return value
    if dataclasses.is_dataclass(value):
        parts = {field.name: apart(getattr(value, field.name), gap) for field in dataclasses.fields(value)}
        return (
            dataclasses.replace(value, **parts)
            if any(parts[name] is not getattr(value, name) for name in parts)
            else value
        )
    if not isinstance(value, torch.Tensor) or value.ndim < 2:
        return value
    wide = poison(torch.empty(*value.shape[:-1], value.shape[-1] + gap, dtype=value.dtype, device=value.device))
    part = wide[..., : value.shape[-1]]
    part.copy_(value)
    return part


@pytest.mark.parametrize("gap", [16, 3])
@every_case
def test_takes_rows_of_any_stride(op, backend, case, gap):
    """The result is that of contiguous arguments, also where rows begin at odd addresses."""
    args = {name: apart(value, gap) for name, value in arguments(op, case).items()}
    got = CONTRACTS[op].result(args, returned_by(op, backend, case, args))
    expect_equal(got, call(op, backend, case))
