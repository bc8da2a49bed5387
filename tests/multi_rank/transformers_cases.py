"""What ranks do with a model that transformers has split over them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist

from dsa_config import settings

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Continued:
    """What a model made of one prompt: as in `Continuation`, with arrays that can be sent."""

    tokens: list[int]
    logits: numpy.ndarray
    selections: dict[int, numpy.ndarray]


def continued(model: Any, prompts: Sequence[Sequence[int]], new: int) -> list[Continued]:
    """Continue some prompts greedily, as one batch, on our ops."""
    from dsa_exec.integrations.transformers import DsaCache, attached
    from dsa_exec.integrations.transformers.continuation import Generation

    with attached(model):
        room = max(map(len, prompts)) + new
        cache = DsaCache.for_model(model, max_tokens=room, batch_size=len(prompts))
        generation = Generation(model, prompts, [new] * len(prompts), cache=cache)
        generation.run()
    made = [generation[request] for request in range(len(prompts))]
    return [
        Continued(it.tokens, it.logits.numpy(), {layer: rows.numpy() for layer, rows in it.selections.items()})
        for it in made
    ]


def run_split(
    rank: int, folder: str | None, prompts: Sequence[Sequence[int]], new: int, formats: str
) -> list[Continued]:
    """Load this rank's part of a checkpoint, of the tiny model if there is no folder, and continue prompts with it."""
    settings.set(index_k_format=formats, kv_format=formats)
    return continued(load_part(folder), prompts, new)


def local_heads(rank: int) -> dict[str, tuple[int, ...]]:
    """What this rank has of the weights of the first attention."""
    attention = load_part(None).model.layers[0].self_attn
    return {name: tuple(_local(it).shape) for name, it in attention.named_parameters() if "norm" not in name}


def refused_load(rank: int, folder: str | None, device: str, device_map: str | None) -> str:
    """How loading ends, before any weight is read."""
    from dsa_exec.integrations.transformers import load_checkpoint, load_tiny, split_loading

    torch.set_num_threads(1)
    split_loading.DistributedConfig, kept = _nothing_is_loaded, split_loading.DistributedConfig
    try:
        load: Any = load_tiny if folder is None else functools.partial(load_checkpoint, Path(folder))
        load(torch.device(device), ranks=dist.get_world_size(), device_map=device_map)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        split_loading.DistributedConfig = kept
    return ""


def refused_parts(rank: int) -> list[str]:
    """How enabling ends where weights are not split as ours need them."""
    from dsa_exec.integrations.transformers import enable

    told = []
    for change in (_halve_a_head, _leave_queries_whole, _hook):
        model = load_part(None)
        change(model.model.layers[1].self_attn)
        try:
            enable(model)
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
    return told


def backward(rank: int) -> str:
    """How a backward pass through a split model ends."""
    from dsa_exec.integrations.transformers import attached

    settings.set(index_k_format="model", kv_format="model")
    model = load_part(None)
    with attached(model):
        logits = model(torch.tensor([[100, 101, 102]])).logits
        try:
            logits.sum().backward()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


def run_script(rank: int, source: str) -> list[int]:
    """Run the script of a page, in a job that has been joined already; the tokens that it made."""
    torch.set_num_threads(1)
    dist.init_process_group, join = lambda: None, dist.init_process_group
    names: dict[str, Any] = {}
    try:
        exec(source, names)
    finally:
        dist.init_process_group = join
    return names["generated"][0].tolist()


def load_part(folder: str | None) -> Any:
    from dsa_exec.integrations.transformers import be_quiet, load_checkpoint, load_tiny

    torch.set_num_threads(1)
    be_quiet()
    ranks = dist.get_world_size()
    return (load_tiny(CPU, ranks=ranks) if folder is None else load_checkpoint(folder, CPU, ranks=ranks)).model


def _nothing_is_loaded(**_: Any) -> None:
    raise AssertionError("went on to load")


def _local(weight: torch.Tensor) -> torch.Tensor:
    return weight.to_local() if hasattr(weight, "to_local") else weight


def _put(module: torch.nn.Module, part: torch.Tensor) -> None:
    """Give a split projection another part of its weight."""
    from torch.distributed.tensor import DTensor

    weight = module.weight
    split = DTensor.from_local(part, weight.device_mesh, weight.placements, run_check=False)
    module.weight = torch.nn.Parameter(split)


def _halve_a_head(attention: Any) -> None:
    _put(attention.kv_b_proj, _local(attention.kv_b_proj.weight)[:-32])


def _leave_queries_whole(attention: Any) -> None:
    _put(attention.q_b_proj, attention.q_b_proj.weight.full_tensor())


def _hook(attention: Any) -> None:
    attention.kv_b_proj.register_forward_hook(lambda *_: None)
