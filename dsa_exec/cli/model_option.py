"""The options `--model` and `--dtype` of commands. Needs no torch."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from dsa_exec.core.errors import DsaError


def _folder(text: str) -> Path:
    """A folder's name. An empty one would be the folder that the command is run in."""
    if not text:
        raise typer.BadParameter(f"{text!r} names no folder; wanted one in Hugging Face format")
    return Path(text)


Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        parser=_folder,
        metavar="DIR",
        help="A deepseek_v32 or glm_moe_dsa checkpoint in Hugging Face format.",
        show_default="a tiny model of ours",
    ),
]


class Dtype(enum.StrEnum):
    """What a model computes in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="What to compute in; auto: what the checkpoint says.")]


class UnusableModel(DsaError, ValueError):
    """A model that cannot be loaded as asked: its folder is none, or a package is missing."""


def require_folder(model: Path | None) -> None:
    """Check `--model` before anything slow.

    Raises:
        UnusableModel: it is no folder.
    """
    if model is not None and not model.is_dir():
        what = "is a file" if model.exists() else "is not there"
        raise UnusableModel(f"--model {model}: {what}; wanted a folder in Hugging Face format")


def require_transformers(command: str) -> None:
    """Import transformers, which takes time.

    Args:
        command: that needs it.

    Raises:
        UnusableModel: it is not installed.
    """
    try:
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise UnusableModel(f"{command} needs transformers: pip install 'dsa[transformers]'") from None


def require_accelerate() -> None:
    """Import accelerate.

    Raises:
        UnusableModel: it is not installed.
    """
    try:
        import accelerate  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "accelerate":
            raise
        raise UnusableModel(
            "--device-map needs accelerate, which spreads the model: pip install 'dsa[spread]'"
        ) from None
