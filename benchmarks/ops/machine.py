"""Where a record was taken: the fields that records of a GPU have in common."""

from __future__ import annotations

import datetime
from typing import Any

import torch

from dsa_exec.core.hardware import capabilities
from dsa_exec.core.vendors import installed_distributions, installed_version

SGLANG_KERNELS = "sglang-kernel"


def machine() -> dict[str, Any]:
    """The current CUDA device, the versions that matter, and the date."""
    hw = capabilities(torch.device("cuda"))
    return {
        "device": torch.cuda.get_device_name(),
        "arch": hw.arch,
        "torch": hw.torch_version,
        "triton": hw.triton_version,
        "vendors": _versions(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _versions() -> dict[str, str]:
    """Those of the packages that ours are compared with."""
    found = installed_distributions()
    other = installed_version(SGLANG_KERNELS)
    return found if other is None else {**found, SGLANG_KERNELS: other}
