"""Work that could not be done: what was raised, in a sentence."""

from __future__ import annotations

import torch

from dsa_exec.core.errors import DsaError


class FailedRun(Exception):
    """A side that could not go on while it was timed: `number`, the first is 0, and `reason`. Becomes a sentence of the
    report, and reaches no caller of ours.
    """

    def __init__(self, number: int, reason: str) -> None:
        self.number = number
        self.reason = reason
        super().__init__(f"while it was timed: {reason}")


def reason_of(error: Exception) -> str:
    """The first line that an error says; with its type, if it is none of ours and so may not name what it is about."""
    said = next((line for line in str(error).splitlines() if line.strip()), "")
    if said and isinstance(error, DsaError | torch.OutOfMemoryError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
