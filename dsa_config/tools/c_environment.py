"""The environment that libraries written in C see, against `os.environ`.

Python copies the environment when it starts, and writes back what is assigned to `os.environ`. What goes another way is
seen by one side alone: `os.putenv` and `os.unsetenv`, and C code that calls `setenv`. Settings read `os.environ`;
libraries that call `getenv` read the other.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from dsa_config.controls import control_variables
from dsa_config.declare import LiveSettings
from dsa_config.declared import MASK, Setting, settings_of

VENDOR_VARIABLES = (
    "CUDA_HOME",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "GPU_ARCHS",
    "HIP_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "ROCR_VISIBLE_DEVICES",
)
"""Variables of drivers and of torch that change what runs where."""

VENDOR_PREFIXES = ("AITER_", "DG_", "FLASH_MLA_", "TRITON_")
"""What the names of the variables of kernel libraries and of Triton begin with."""

_SECRET_WORDS = frozenset(("CREDENTIAL", "CREDENTIALS", "KEY", "PASSWORD", "SECRET", "TOKEN"))


@dataclass(frozen=True, slots=True)
class Difference:
    """A variable that the two sides see differently. Values of secrets are never in it.

    Attributes:
        name: the variable.
        setting: the field that it is a name of, or None.
        in_python: what `os.environ` has; None: not set there.
        in_c: what `getenv` gives; None: not set there.
    """

    name: str
    setting: str | None
    in_python: str | None
    in_c: str | None

    def __str__(self) -> str:
        python, c = ("not set" if it is None else repr(it) for it in (self.in_python, self.in_c))
        return f"{self.name} is {python} in os.environ, and {c} for libraries that call getenv"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes:
        names: the variables that were compared.
        differences: those that the two sides see differently.
    """

    names: tuple[str, ...]
    differences: tuple[Difference, ...]


def compare_environments(cls: type[LiveSettings]) -> Comparison | None:
    """Compare what `os.environ` and C have now of the variables that matter to kernels and settings.

    Those are every name of every setting of a class, its control variables, and vendors' variables.

    Args:
        cls: the settings class.

    Returns:
        None where it is not known how to look at the environment of C.
    """
    in_python, in_c = python_environment(), c_environment()
    if in_c is None:
        return None
    owners = {variable: setting for setting in settings_of(cls).values() for variable in setting.variables}
    vendors = sorted(name for name in {*in_python, *in_c} if name.startswith(VENDOR_PREFIXES))
    names = tuple(dict.fromkeys([*owners, *control_variables(cls), *VENDOR_VARIABLES, *vendors]))
    found = [
        _difference(name, owners.get(name), in_python.get(name), in_c.get(name))
        for name in names
        if in_python.get(name) != in_c.get(name)
    ]
    return Comparison(names, tuple(found))


def python_environment() -> dict[str, str]:
    """The environment as settings and other Python code see it now."""
    return dict(os.environ)


def c_environment() -> dict[str, str] | None:
    """The environment as `getenv` sees it now; None where it is not known how to look at it.

    No other thread may change the environment meanwhile, as with any use of it in C.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    return variables_in(ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ"))


def variables_in(entries: Any) -> dict[str, str]:
    """Names and texts of an array of C strings `NAME=text` that ends with a null pointer, or is one (`clearenv`)."""
    found: dict[str, str] = {}
    place = 0
    while entries and (entry := entries[place]) is not None:
        name, sign, text = entry.partition(b"=")
        if sign:  # getenv cannot find what has none
            found.setdefault(os.fsdecode(name), os.fsdecode(text))  # of two with one name, it gives the first
        place += 1
    return found


def _difference(name: str, owner: Setting | None, in_python: str | None, in_c: str | None) -> Difference:
    is_secret = owner.secret if owner is not None else _SECRET_WORDS & set(name.upper().split("_"))
    if is_secret:
        in_python, in_c = (None if it is None else MASK for it in (in_python, in_c))
    return Difference(name, None if owner is None else owner.name, in_python, in_c)
