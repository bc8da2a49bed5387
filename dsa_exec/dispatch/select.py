"""Chooses a backend for a call. A named choice never falls back; `auto` does, and says so once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from dsa_config import settings
from dsa_config.declarations.backends import AUTO
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import capabilities
from dsa_exec.dispatch import trace
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.registry import backend, backends

_log = logging.getLogger("dsa_exec.dispatch")
_said: set[tuple[str, str, tuple[tuple[str, str], ...]]] = set()


@dataclass(frozen=True, slots=True)
class Decision:
    """Which backend runs a call of an op.

    Attributes:
        op: the op.
        choice: what the setting says: `auto` or a name.
        backend: the backend that was chosen.
        refusals: the backends that `auto` would rather have had, each with its refusal in words.
        declined: the backends before it that could have run the call, each with the reason why `auto` passed on.
    """

    op: str
    choice: str
    backend: Backend
    refusals: tuple[tuple[str, str], ...] = ()
    declined: tuple[tuple[str, str], ...] = ()

    @property
    def why(self) -> str:
        """The reason, in words."""
        if self.choice != AUTO:
            return f"{self.op}_backend names it"
        passed = [f"{name} refuses: {sentence}" for name, sentence in self.refusals]
        passed += [f"{name} declines: {sentence}" for name, sentence in self.declined]
        if passed:
            return "auto: " + "; ".join(passed)
        return "auto: the only backend" if len(backends(self.op)) == 1 else "auto: the first choice here"


def decide(op: str, call: Any, device: torch.device) -> Decision:
    """Choose the backend for a call, by the op's setting as of now.

    Args:
        op: the op.
        call: its Call.
        device: where the call's tensors are.

    Raises:
        UnsupportedCall: the named backend refuses the call, or all do.
    """
    choice = getattr(settings, f"{op}_backend")
    hw = capabilities(device)
    candidates = backends(op).values() if choice == AUTO else (backend(op, choice),)
    refusals: list[tuple[str, str]] = []
    declined: list[tuple[str, str]] = []
    for candidate in candidates:
        if choice == AUTO and (sentence := candidate.declines(call, hw)) is not None:
            declined.append((candidate.name, sentence))
            continue
        sentence = candidate.refuses(call, hw)
        if sentence is None:
            decision = Decision(op, choice, candidate, tuple(refusals), tuple(declined))
            _report(decision)
            return decision
        refusals.append((candidate.name, sentence))
    raise UnsupportedCall(op, choice, [*refusals, *declined])


def run(op: str, call: Any, device: torch.device) -> Any:
    """Run a call on the backend that the op's setting chooses now; a profiler sees it as `dsa::<op> (<backend>)`."""
    backend = decide(op, call, device).backend
    if not torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
        return backend.run(call)
    with torch.profiler.record_function(f"dsa::{op} ({backend.name})"):
        return backend.run(call)


def _report(decision: Decision) -> None:
    trace.note_decision(decision)
    if settings.debug_log_decisions:
        _log.info("%s runs on %s (%s)", decision.op, decision.backend.name, decision.why)
    elif decision.refusals:
        key = (decision.op, decision.backend.name, decision.refusals)
        if key not in _said:
            _said.add(key)
            _log.warning("%s falls back to %s (%s)", decision.op, decision.backend.name, decision.why)
