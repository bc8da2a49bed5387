"""The model that options ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dsa_exec.cli.device_option import usable_device
from dsa_exec.cli.model_option import Dtype, require_accelerate
from dsa_exec.integrations import transformers as hf


def load_model(
    model: Path | None, device: str, dtype: Dtype, device_map: str | None = None, ranks: int = 1
) -> hf.Loaded:
    """Load a model, or this rank's part of it, where it was asked for.

    Args:
        model: its folder; None: the tiny one of this project.
        device: of the option of this name.
        dtype: what to compute in.
        device_map: how to spread it over devices; None: it is on one.
        ranks: of torch.distributed, over all of which it is split. All of them call this.

    Raises:
        UnusableDevice, CheckpointError, UnusableModel, NotSupported: it cannot be.
    """
    if device_map is not None:
        require_accelerate()
    wanted = None if dtype is Dtype.AUTO else getattr(torch, dtype)
    where = usable_device(device)
    hf.be_quiet()
    if model is None:
        return hf.load_tiny(where, dtype=wanted, device_map=device_map, ranks=ranks)
    return hf.load_checkpoint(model, where, dtype=wanted, device_map=device_map, ranks=ranks)


def device_names(model: Any) -> str:
    """What a model is on, in words: each kind of GPU once, with how many of them."""
    devices = sorted({it.device for it in model.parameters()}, key=str)
    names = [torch.cuda.get_device_name(it) if it.type == "cuda" else str(it) for it in devices]
    counts = {name: names.count(name) for name in names}
    return " and ".join(name if many == 1 else f"{many} x {name}" for name, many in counts.items())


def dtype_name(model: Any) -> str:
    """What a model computes in: `float32`."""
    return str(model.dtype).removeprefix("torch.")
