"""What lies in a checkpoint's folder: the model's configuration, and an index that knows the size of the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsa_exec.core.errors import DsaError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"


class CheckpointError(DsaError):
    """A file of a checkpoint that cannot be read as it must be: `file`, `reason`."""

    def __init__(self, file: Path, reason: str) -> None:
        self.file = file
        self.reason = reason
        super().__init__(f"{file}: {reason}")


def config_file(model: Path) -> Path:
    """The configuration's file: the path itself, or `config.json` in it where it is a folder.

    Raises:
        CheckpointError: there is none.
    """
    if model.is_dir():
        model /= CONFIG
        if not model.exists():
            raise CheckpointError(model.parent, f"has no {CONFIG}; --model takes such a file or a folder that has one")
    elif not model.exists():
        raise CheckpointError(model, f"is not there; --model takes a {CONFIG} or a folder that has one")
    return model


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        CheckpointError: it cannot be read, or is no JSON object.
    """
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise CheckpointError(file, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(file, f"is no UTF-8 text: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(file, f"is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise CheckpointError(file, "is nested too deep") from None
    if not isinstance(document, dict):
        raise CheckpointError(file, f"holds no JSON object at its top, but {type(document).__name__}")
    return document


def checkpoint_bytes(config: Path) -> tuple[int, Path] | None:
    """The size of all weights by the index beside a configuration, and the index's file; None where there is none.

    Raises:
        CheckpointError: the index does not say it.
    """
    index = config.parent / INDEX
    if not index.exists():
        return None
    metadata = read_object(index).get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(size, float) and size.is_integer():  # some writers count in floats
        size = int(size)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        reason = f"has no positive whole number at metadata.total_size, but {json.dumps(size)}"
        raise CheckpointError(index, f"{reason}; --weights SIZE says what a rank's weights take")
    return size, index
