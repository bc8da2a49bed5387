"""Loads a model from a local folder, or the tiny one that ships with the project. Never asks the network."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dsa_exec.core.checks import FLOAT_DTYPES
from dsa_exec.integrations.transformers.bytes_tokenizer import BYTE_TOKENS, BytesTokenizer
from dsa_exec.integrations.transformers.cache import MODEL_TYPES
from dsa_exec.integrations.transformers.completeness import first_of, require_whole
from dsa_exec.integrations.transformers.configuration import wrong_in
from dsa_exec.integrations.transformers.errors import CheckpointError
from dsa_exec.integrations.transformers.split_loading import how_to_split
from dsa_exec.integrations.transformers.spread import connect_layers, require_accelerate

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
STORED_DTYPES = ("F64", "F32", "BF16", "F16")
"""How safetensors calls the dtypes that weights are trained in."""

OFFLOADED = ("cpu", "disk")
"""How a device map calls what is no accelerator."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run.

    Attributes:
        model: a causal language model of transformers, in evaluation mode, on its device.
        tokenizer: has `encode(text)` and `decode(tokens, skip_special_tokens=...)`.
        name: what to call it.
        notes: what a user should know about how it was loaded.
    """

    model: Any
    tokenizer: Any
    name: str
    notes: tuple[str, ...] = ()


def load_checkpoint(
    path: str | Path,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    device_map: str | None = None,
    ranks: int = 1,
) -> Loaded:
    """Load a checkpoint in Hugging Face format.

    Args:
        path: a folder with config.json and weights.
        device: where to put the model.
        dtype: what to compute in, whatever the weights were saved as; None: what config.json says.
        device_map: how accelerate is to spread the model, such as "auto"; `device` is then not looked at.
        ranks: over how many ranks of torch.distributed to split the model: all that there are. All of them call this,
            after `init_process_group`; each reads what it is to have.

    Raises:
        CheckpointError: it cannot be loaded whole, is not of a supported model type or has weights that the model by
            config.json has no place for, it does not fit on the devices of a map, or ranks cannot have equal parts.
        NotSupported: `device_map` or `ranks` without accelerate, or both; with `ranks`, a device that transformers
            does not split over.
    """
    if device_map is not None:
        require_accelerate("device_map", "which spreads a model")
    path = Path(path)
    config = _config(path)
    placed = {"device_map": device_map} if ranks == 1 else how_to_split(path, config, ranks, device, device_map)
    _require_float_weights(path)
    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, info = load(
            path,
            config=config,
            dtype="auto" if dtype is None else dtype,
            **placed,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, by name
        )
    except Exception as error:  # whatever transformers, safetensors or torch make of a damaged file
        raise CheckpointError(f"{path}: the weights cannot be loaded: {_first_line(error)}") from error
    if model.dtype not in FLOAT_DTYPES:
        wanted = ", ".join(map(str, FLOAT_DTYPES))
        raise CheckpointError(f"{path}: the model would be {model.dtype}; {wanted} are supported")
    left_out = require_whole(path, info, config.num_hidden_layers)
    if device_map is None:
        if ranks == 1:
            model.to(device)
    else:
        _require_on_devices(path, model)
        connect_layers(model)
    tokenizer, notes = _tokenizer(path, config)
    return Loaded(model.eval(), tokenizer, str(path), (*left_out, *notes))


def _require_on_devices(path: Path, model: Any) -> None:
    """Refuse weights that a device map leaves in the host's memory or on disk, to be fetched for every pass."""
    homes = {str(name): str(home) for name, home in getattr(model, "hf_device_map", {}).items()}
    left = [name for name, home in homes.items() if home in OFFLOADED and set(homes.values()) != {home}]
    if left or any(parameter.is_meta for parameter in model.parameters()):
        named = first_of(left) if left else "part of the model"
        raise CheckpointError(
            f"{path}: the devices have no room for {named}, which would stay in the host's memory or on disk: our "
            "attention needs its weights on a device"
        )


def load_tiny(
    device: torch.device, *, dtype: torch.dtype | None = None, device_map: str | None = None, ranks: int = 1
) -> Loaded:
    """The tiny model that ships with the project (docs/tiny-model.md): a DeepSeek-V3.2, trained on Python."""
    with resources.as_file(resources.files("dsa_exec.models") / "tiny") as folder:
        loaded = load_checkpoint(folder, device, dtype=dtype, device_map=device_map, ranks=ranks)
    return replace(loaded, name="the tiny model of this project", notes=())


def _config(path: Path) -> Any:
    file = path / "config.json"
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such folder")
    if not path.is_dir():
        raise CheckpointError(f"{path}: is a file; wanted a folder in Hugging Face format")
    if not file.exists():
        raise CheckpointError(f"{path}: has no config.json, so it is no checkpoint in Hugging Face format")
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: is not JSON: {_first_line(error)}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{file}: is not a JSON object but a {type(document).__name__}")
    kind = document.get("model_type")
    if kind not in MODEL_TYPES:
        raise CheckpointError(f"{file}: model_type is {kind!r}; {' and '.join(MODEL_TYPES)} are supported")
    if document.get("quantization_config") is not None:
        raise CheckpointError(f"{file}: has a quantization_config; wanted weights as they were trained, such as bf16")
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except Exception as error:  # whatever transformers makes of a bad value
        raise CheckpointError(f"{file}: is not a configuration of {kind}: {_first_line(error)}") from error
    fault = wrong_in(config)
    if fault is not None:
        raise CheckpointError(f"{file}: {fault}")
    return config


def _require_float_weights(path: Path) -> None:
    """Refuse quantised weights that config.json says nothing of: they would be loaded as if they were the numbers."""
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                dtypes = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        except Exception as error:  # whatever safetensors makes of a damaged file
            raise CheckpointError(f"{path}: the weights cannot be loaded: {_first_line(error)}") from error
        quantised = [f"{name} as {dtype}" for name, dtype in sorted(dtypes.items()) if dtype not in STORED_DTYPES]
        if quantised:
            raise CheckpointError(
                f"{file}: holds {first_of(quantised)}, and config.json has no quantization_config; wanted weights as "
                "they were trained, such as bf16"
            )


def _tokenizer(path: Path, config: Any) -> tuple[Any, tuple[str, ...]]:
    if not any((path / name).exists() for name in TOKENIZER_FILES):
        if config.vocab_size < BYTE_TOKENS:
            raise CheckpointError(
                f"{path}: has no tokenizer, and vocab_size {config.vocab_size} is too small for bytes"
            )
        return BytesTokenizer(), ("the checkpoint has no tokenizer: the text's bytes are used as tokens",)
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True), ()
    except Exception as error:  # whatever transformers or tokenizers make of a damaged file
        raise CheckpointError(f"{path}: the tokenizer cannot be loaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {' '.join(' '.join(lines[:2]).split())}" if lines else type(error).__name__
