"""How a checkpoint is loaded by several ranks, each of which reads its part of the weights (tensor parallel)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.distributed.configuration_utils import DistributedConfig

from dsa_exec.integrations.transformers.errors import CheckpointError, NotSupported
from dsa_exec.integrations.transformers.spread import require_accelerate
from dsa_exec.runtime.distributed.even_parts import split_widths, uneven


def how_to_split(path: Path, config: Any, ranks: int, device: torch.device, device_map: str | None) -> dict[str, Any]:
    """What `from_pretrained` takes to load this rank's part of a checkpoint, to the device of this rank.

    Args:
        path: the checkpoint.
        config: of it.
        ranks: of torch.distributed, all of them.
        device: where the parts are to be.
        device_map: another way to spread the model.

    Raises:
        CheckpointError: ranks cannot have equal parts.
        NotSupported: a device map as well, no accelerate, or another kind of device than transformers takes.
    """
    if device_map is not None:
        raise NotSupported("device_map and ranks say both where the model goes: leave one out")
    require_accelerate("ranks", "by which transformers places the parts of a model")
    taken = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device.type != taken.type:
        raise NotSupported(
            f"the device is {device}, and transformers splits a model over {taken.type} where there is one: take that, "
            "or hide it from torch (CUDA_VISIBLE_DEVICES='')"
        )
    fault = uneven(split_widths(config.to_dict()), ranks)
    if fault is not None:
        raise CheckpointError(f"{path / 'config.json'}: {fault}")
    return {"distributed_config": DistributedConfig(tp_size=ranks)}
