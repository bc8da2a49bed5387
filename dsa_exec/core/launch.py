"""How kernels are launched: a frozen dataclass beside each kernel, and the setting that replaces its fields.

The dataclass is chosen by measured rules of thumb. `kernel_launch` is for experiments: `"topk.gluon.blocks=8"` replaces
one field wherever that backend of that op launches; parts stand apart by blanks or commas.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import TypeVar

from dsa_config import settings
from dsa_exec.core.errors import LaunchError

Launch = TypeVar("Launch")

_PART = re.compile(r"([a-z_]+)\.([a-z_]+)\.([a-z_]+)=([0-9]+)")


def chosen_launch(op: str, backend: str, launch: Launch) -> Launch:
    """The launch parameters with what `kernel_launch` says about them now.

    Args:
        op: the op.
        backend: the backend that launches.
        launch: a frozen dataclass of ints, as the rules of thumb chose it.

    Raises:
        LaunchError: the setting names a field that the dataclass does not have.
    """
    text = settings.kernel_launch
    if not text:
        return launch
    wanted = _replacements(text).get((op, backend))
    if not wanted:
        return launch
    fields = [field.name for field in dataclasses.fields(launch)]  # type: ignore[arg-type]
    for field in wanted:
        if field not in fields:
            raise LaunchError(f"{op}.{backend}.{field}", f"one of {', '.join(fields)}")
    return dataclasses.replace(launch, **wanted)  # type: ignore[type-var]


@functools.lru_cache(maxsize=16)
def _replacements(text: str) -> dict[tuple[str, str], dict[str, int]]:
    found: dict[tuple[str, str], dict[str, int]] = {}
    for op, backend, field, number in _PART.findall(text):  # the setting has no other parts
        found.setdefault((op, backend), {})[field] = int(number)
    return found
