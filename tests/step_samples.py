"""Lengths, pages and machines for the tests of steps."""

from __future__ import annotations

import torch
from fakes import deep_gemm

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.vendors import Missing


def ints(*numbers: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype)


def table(b: int, pages: int) -> torch.Tensor:
    return torch.arange(b * pages, dtype=torch.int32).view(b, pages)


def machine(arch: str, *, num_sms: int = 8) -> Capabilities:
    """A GPU with deep_gemm on it."""
    return deep_gemm.machine(arch, num_sms=num_sms)[0]


def machine_without_deep_gemm(arch: str) -> Capabilities:
    vendors = {"deep_gemm": Missing("deep_gemm", "deep_gemm is not here")}
    return Capabilities("cuda", arch, "2.11.0", "3.6.0", multiprocessors=8, vendors=vendors)
