"""Of how many ranks each can have an equal part of all that tensor parallelism splits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def split_widths(config: Mapping[str, Any]) -> dict[str, int]:
    """What is split of a `deepseek_v32` or `glm_moe_dsa` model, as config.json calls it, heads first.

    Args:
        config: the model's config.json; what it leaves to defaults is left out here.
    """
    layers, dense = config.get("num_hidden_layers"), config.get("first_k_dense_replace")
    kinds = set(config.get("mlp_layer_types") or ())
    if not kinds and isinstance(layers, int) and isinstance(dense, int):
        kinds = {kind for kind, is_there in (("dense", dense > 0), ("sparse", dense < layers)) if is_there}
    names = ["num_attention_heads"]
    names += ["intermediate_size"] if "dense" in kinds else []
    names += ["moe_intermediate_size"] if "sparse" in kinds else []
    names += ["vocab_size"]
    found = {name: config.get(name) for name in names}
    return {name: width for name, width in found.items() if isinstance(width, int) and width > 0}


def uneven(widths: Mapping[str, int], ranks: int) -> str | None:
    """The first width of which so many ranks cannot have equal parts, and how many can; None if there is none."""
    name = next((name for name, width in widths.items() if width % ranks), None)
    if name is None:
        return None
    common = math.gcd(*widths.values())
    *fewer, most = (str(it) for it in range(1, common + 1) if common % it == 0)
    wanted = f"{', '.join(fewer)} or {most}" if fewer else most
    return f"{name} is {widths[name]}, of which {ranks} ranks cannot have equal parts; wanted {wanted}"
