"""Finds backends: the files `on_<name>.py` beside an op, imported when they are first asked for."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path
from typing import Any

from dsa_config.declarations.backends import backend_names
from dsa_exec.dispatch.backend import Backend


def op_names() -> tuple[str, ...]:
    """Every op, in alphabetical order."""
    ops = str(Path(__file__).parent.parent / "ops")
    return tuple(sorted(module.name for module in pkgutil.iter_modules([ops]) if module.ispkg))


@functools.cache
def backend(op: str, name: str) -> Backend:
    """One backend of an op.

    Raises:
        ImportError, AttributeError: its file is broken. That is never taken for "not available".
    """
    module = importlib.import_module(f"dsa_exec.ops.{op}.on_{name}")
    found: Backend = module.BACKEND
    if found.name != name:
        raise AttributeError(f"{module.__file__}: BACKEND is named {found.name!r}; wanted {name!r}")
    return found


@functools.cache
def backends(op: str) -> dict[str, Backend]:
    """All backends of an op by name, in the order in which `auto` tries them.

    Raises:
        ImportError, AttributeError: the file of one of them is broken.
    """
    found = [backend(op, name) for name in backend_names(op)]
    return {it.name: it for it in sorted(found, key=lambda it: (it.rank, it.name))}


def op_function(op: str) -> Any:
    """The public function of an op, for a backend that is made of other ops."""
    return getattr(importlib.import_module(f"dsa_exec.ops.{op}"), op)


def op_call(op: str) -> Any:
    """The class of an op's checked arguments, likewise."""
    return importlib.import_module(f"dsa_exec.ops.{op}").Call
