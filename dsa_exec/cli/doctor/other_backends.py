"""What every other backend says of a call than the one that would run it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from dsa_config import settings
from dsa_config.declarations.backends import AUTO, backend_names
from dsa_exec.cli.doctor.report import Alternative
from dsa_exec.core.hardware import Capabilities
from dsa_exec.dispatch.registry import backend


def other_backends(op: str, key: str, call: Any, hw: Capabilities, chosen: str | None) -> list[Alternative]:
    """Every backend but the chosen one, in the order of `auto`; those that could not be asked come last.

    Args:
        op: the op.
        key: what chooses its backend: a variable, or the setting itself.
        call: the op's Call.
        hw: the hardware.
        chosen: the backend that would run the call, if there is one.
    """
    candidates = sorted(
        (_candidate(op, name, call, hw) for name in backend_names(op)), key=lambda it: (it.rank, it.name)
    )
    is_named = getattr(settings, f"{op}_backend") != AUTO
    first = next((it for it in candidates if it.suits_auto), None) if is_named else None
    return [it.alternative(key, auto_would=it is first) for it in candidates if it.name != chosen]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What a backend says of a call.

    Attributes:
        name: the backend.
        rank: its place in the order of `auto`.
        refused: why it cannot run the call.
        declined: why `auto` passes on it.
        adapted: what it changes about the call.
        broken: why it could not be asked.
    """

    name: str
    rank: int = sys.maxsize
    refused: str | None = None
    declined: str | None = None
    adapted: str | None = None
    broken: str | None = None

    @property
    def suits_auto(self) -> bool:
        return self.refused is None and self.declined is None and self.broken is None

    def alternative(self, key: str, *, auto_would: bool) -> Alternative:
        """It as an answer to: what else could run the call?"""
        if self.broken is not None:
            return Alternative(backend=self.name, verdict="fails", reason=self.broken, setting=None)
        if self.refused is not None:
            return Alternative(backend=self.name, verdict="refuses", reason=self.refused, setting=None)
        said = "auto would choose it" if auto_would else None
        if self.declined is not None:
            said = f"auto passes on it: {self.declined}"
        reason = "; ".join(it for it in (said, self.adapted) if it) or None
        return Alternative(backend=self.name, verdict="could run", reason=reason, setting=f"{key}={self.name}")


def _candidate(op: str, name: str, call: Any, hw: Capabilities) -> _Candidate:
    try:
        it = backend(op, name)
        refused, declined = it.refuses(call, hw), it.declines(call, hw)
        return _Candidate(name, it.rank, refused, declined, None if refused else it.adapts(call, hw))
    except Exception as error:  # a defect of one must not keep the rest from being told
        return _Candidate(name, broken=told(error))


def told(error: Exception) -> str:
    """An error in words."""
    return f"{type(error).__name__}: {error}"
