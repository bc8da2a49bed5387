"""Whether a checkpoint and its config.json are of the same model: nothing lacks, nothing is left over."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dsa_exec.integrations.transformers.errors import CheckpointError

_LAYER = re.compile(r"(?:model\.)?layers\.(\d+)\.")
_ONLY_IN_DRAFTS = "eh_proj.weight"
"""A draft layer (next-token prediction) joins an embedding with a hidden state by this, which no other layer has."""


def require_whole(path: Path, info: Mapping[str, Collection[Any]], layers: int) -> tuple[str, ...]:
    """Check what transformers tells of loading.

    Args:
        path: the checkpoint.
        info: `missing_keys`, `mismatched_keys` and `unexpected_keys`.
        layers: of the model, by config.json.

    Returns:
        What to tell a user: draft layers are left out.

    Raises:
        CheckpointError: a tensor lacks, has another shape, or is for no module of the model.
    """
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(f"{path}: the checkpoint lacks {first_of(missing)}")
    mismatched = [
        f"{name} ({list(stored)} in the file, {list(wanted)} by config.json)"
        for name, stored, wanted in sorted(info["mismatched_keys"])
    ]
    if mismatched:
        raise CheckpointError(f"{path}: the checkpoint has the wrong shape for {first_of(mismatched)}")
    drafts = _drafts(info["unexpected_keys"], layers)
    left_over = sorted(name for name in info["unexpected_keys"] if _layer_of(name) not in drafts)
    if left_over:
        raise CheckpointError(
            f"{path}: the checkpoint has {first_of(left_over)}, for which the model by config.json has no place "
            f"(num_hidden_layers is {layers})"
        )
    return tuple(f"layer {layer} of the checkpoint is a draft layer, which is left out" for layer in sorted(drafts))


def first_of(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _drafts(names: Collection[str], layers: int) -> set[int]:
    found = {_layer_of(name) for name in names if name.endswith(_ONLY_IN_DRAFTS)}
    return {layer for layer in found if layer is not None and layer >= layers}


def _layer_of(name: str) -> int | None:
    match = _LAYER.match(name)
    return None if match is None else int(match[1])
