"""The option `--device` of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dsa_exec.core.errors import DsaError

if TYPE_CHECKING:
    import torch

AUTO = "auto"
LONGEST_REASON = 200
NAMES = "cpu, cuda, cuda:N, or another device that this torch computes on"

Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ..., or auto for a GPU if there is one.")]


class UnusableDevice(DsaError, ValueError):
    """A device that torch does not know, have or reach: `device`, `reason`."""

    def __init__(self, device: str, reason: str) -> None:
        self.device = device
        self.reason = reason
        super().__init__(f"--device {device}: {reason}")


def usable_device(name: str) -> torch.device:
    """The device of a name, or with `auto` the GPU if torch can use one, else the CPU.

    Raises:
        UnusableDevice: nothing can be computed there.
    """
    import torch

    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UnusableDevice(name, f"is no device; wanted {AUTO}, {NAMES}") from None
    if device.type == "meta":
        raise UnusableDevice(name, f"computes nothing; wanted {AUTO}, {NAMES}")
    try:
        torch.zeros(1, device=device).item()
        return device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnusableDevice(name, reason[:LONGEST_REASON]) from None
