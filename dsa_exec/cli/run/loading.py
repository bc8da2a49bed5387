"""The model that was asked for."""

from __future__ import annotations

from typing import Any

import torch

from dsa_exec.cli.device_option import usable_device
from dsa_exec.cli.run.asked import Asked, Dtype
from dsa_exec.cli.run.errors import RunError
from dsa_exec.integrations import transformers as hf


def load(asked: Asked) -> hf.Loaded:
    """Load it where it was asked for.

    Raises:
        UnusableDevice, CheckpointError: the device or the model cannot be used.
        RunError: the model cannot be spread.
    """
    if asked.device_map is not None:
        _require_accelerate()
    dtype = None if asked.dtype is Dtype.AUTO else getattr(torch, asked.dtype)
    where = usable_device(asked.device)
    hf.be_quiet()
    if asked.model is None:
        return hf.load_tiny(where, dtype=dtype, device_map=asked.device_map)
    return hf.load_checkpoint(asked.model, where, dtype=dtype, device_map=asked.device_map)


def device_names(model: Any) -> str:
    """What the model is on, in words: each kind of GPU once, with how many of them."""
    devices = sorted({it.device for it in model.parameters()}, key=str)
    names = [torch.cuda.get_device_name(it) if it.type == "cuda" else str(it) for it in devices]
    counts = {name: names.count(name) for name in names}
    return " and ".join(name if many == 1 else f"{many} x {name}" for name, many in counts.items())


def _require_accelerate() -> None:
    try:
        import accelerate  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "accelerate":
            raise
        raise RunError("--device-map needs accelerate, which spreads the model: pip install accelerate") from None
