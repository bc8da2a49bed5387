"""The names that a backend setting takes: `auto`, and the backends that lie beside the op as `on_<name>.py`.

A new backend is one new file: its name is allowed by being there.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dsa_config.declare import setting
from dsa_config.grammar import ChoicesOf

AUTO = "auto"


def backend_names(op: str) -> tuple[str, ...]:
    """The names of an op's backends, in alphabetical order; none where the execution package is not installed."""
    package = importlib.util.find_spec("dsa_exec")
    places = package.submodule_search_locations if package is not None else None
    files = [file for place in places or () for file in Path(place, "ops", op).glob("on_*.py")]
    return tuple(sorted(file.stem.removeprefix("on_") for file in files))


def backend_choices(op: str) -> ChoicesOf:
    """What the backend setting of an op takes, looked up when it is asked for."""
    return ChoicesOf(lambda: (AUTO, *backend_names(op)))


def backend_setting() -> str:
    """Declare the backend of an op, `auto` by default; the field's type says which op: `backend_choices`."""
    return setting(AUTO, pattern=r"^[a-z][a-z0-9_]*$")
