"""How the kernels of `kv_store` are launched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel.

    Attributes:
        tokens: tokens a program, a power of two.
        warps: warps a program.
    """

    tokens: int
    warps: int


def portable_launch() -> PortableLaunch:
    """The launch parameters."""
    return PortableLaunch(tokens=16, warps=4)
