"""The versions of what a run depends on."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import dsa_config

if TYPE_CHECKING:
    import torch


def versions_on(device: torch.device) -> dict[str, str | None]:
    """Of dsa, Python, torch, Triton (None where it is not installed) and transformers, which must be installed."""
    import torch
    import transformers

    from dsa_exec.core.hardware import capabilities

    return {
        "dsa": dsa_config.__version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "Triton": capabilities(device).triton_version,
        "transformers": transformers.__version__,
    }
