"""Chooses a backend for a call. A named choice never falls back; `auto` does, and says so once."""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from dsa_config import settings
from dsa_config.declarations.backends import AUTO
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.dispatch import trace
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.registry import backend, backends
from dsa_exec.dispatch.signature import signature_of, values_in
from dsa_exec.memory.footprint import NOTHING, Footprint

_log = logging.getLogger("dsa_exec.dispatch")
_said: set[tuple[str, str, tuple[tuple[str, str], ...]]] = set()

MOST_REMEMBERED = 1024
"""Decisions that are kept for an op; prefill has a signature for every number of rows."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Which backend runs a call of an op.

    Attributes:
        op: the op.
        choice: what the setting says: `auto` or a name.
        backend: the backend that was chosen.
        refusals: the backends that `auto` would rather have had, each with its refusal in words.
        declined: the backends before it that could have run the call, each with the reason why `auto` passed on.
        adapted: what the backend changes about the call to be able to run it, or None.
        footprint: what calls of this signature allocate; nothing where it was not asked for (`weigh`).
    """

    op: str
    choice: str
    backend: Backend
    refusals: tuple[tuple[str, str], ...] = ()
    declined: tuple[tuple[str, str], ...] = ()
    adapted: str | None = None
    footprint: Footprint = NOTHING

    @property
    def why(self) -> str:
        """The reason, in words."""
        return f"{self._reason}; {self.adapted}" if self.adapted else self._reason

    @property
    def _reason(self) -> str:
        if self.choice != AUTO:
            return f"{self.op}_backend names it"
        passed = [f"{name} refuses: {sentence}" for name, sentence in self.refusals]
        passed += [f"{name} declines: {sentence}" for name, sentence in self.declined]
        if passed:
            return "auto: " + "; ".join(passed)
        return "auto: the only backend" if len(backends(self.op)) == 1 else "auto: the first choice here"


def decide(op: str, call: Any, device: torch.device, *, noted: bool = True) -> Decision:
    """Choose the backend for a call, by the op's setting as of now.

    Calls of one signature under the same settings are decided once.

    Args:
        op: the op.
        call: its Call.
        device: where the call's tensors are.
        noted: traces and the log hear of it; if not, `note` tells them when it is settled.

    Raises:
        UnsupportedCall: the named backend refuses the call, or all do.
    """
    memory = _memory(op)
    choice = getattr(settings, memory.setting)
    hw = capabilities(device)
    try:
        # Traced through the specification, or under a transform of torch.func, tensors have no address.
        signature = None if torch.compiler.is_compiling() else signature_of(call)
    except RuntimeError:
        signature = None
    if signature is None:
        decision = _decided(op, choice, call, hw)
    else:
        read = None if memory.read is None else memory.read(settings)
        key = (choice, read, id(hw), signature)
        last = memory.last
        # Layers of a model have one signature: comparing it with the last one's is cheaper than its hash.
        decision = last.decision if key == last.key else _remembered(memory, key, op, choice, call, hw)
    if noted:
        note(decision)
    return decision


def note(decision: Decision) -> None:
    """Tell traces and the log of a decision that was made."""
    trace.note_decision(decision)
    if settings.debug_log_decisions:
        _log.info("%s runs on %s (%s)", decision.op, decision.backend.name, decision.why)


def weigh(op: str, call: Any, hw: Capabilities) -> Decision:
    """Choose the backend for a call on some hardware, without a word to logs or traces: what would be, not what is.

    Raises:
        UnsupportedCall: the named backend refuses the call, or all do.
    """
    return _weighed(op, getattr(settings, f"{op}_backend"), call, hw)


def run(op: str, call: Any, device: torch.device) -> Any:
    """Run a call on the backend that the op's setting chooses now; a profiler sees it as `dsa::<op> (<backend>)`."""
    return run_decided(decide(op, call, device), call)


def run_decided(decision: Decision, call: Any) -> Any:
    """Run a call, or a part of its rows, on the backend that was chosen for it."""
    backend = decision.backend
    if not torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
        return backend.run(call)
    with torch.profiler.record_function(f"dsa::{decision.op} ({backend.name})"):
        return backend.run(call)


def forget_decisions() -> None:
    """Decide every call anew: for tests that change what backends there are."""
    _memory.cache_clear()


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A decision, its key, and the values that stand in the key by identity: no others have their ids meanwhile."""

    key: tuple[Any, ...]
    decision: Any
    values: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Memory:
    """What is kept of an op's decisions.

    Attributes:
        setting: the setting that names its backend.
        read: takes the settings, gives those that its backends read when they refuse; None: they read none.
        last: the last decision.
        decisions: by key.
    """

    setting: str
    read: Callable[[Any], Any] | None
    last: _Remembered = _Remembered((), None)
    decisions: dict[tuple[Any, ...], _Remembered] = field(default_factory=dict)


@functools.cache
def _memory(op: str) -> _Memory:
    reads = sorted({name for it in backends(op).values() for name in it.reads})
    return _Memory(f"{op}_backend", operator.attrgetter(*reads) if reads else None)


def _remembered(memory: _Memory, key: tuple[Any, ...], op: str, choice: str, call: Any, hw: Capabilities) -> Decision:
    found = memory.decisions.get(key)
    if found is None:
        found = _Remembered(key, _decided(op, choice, call, hw), (hw, *values_in(call)))
        if len(memory.decisions) >= MOST_REMEMBERED:
            memory.decisions.clear()
        memory.decisions[key] = found
    memory.last = found
    decision: Decision = found.decision
    return decision


def _decided(op: str, choice: str, call: Any, hw: Capabilities) -> Decision:
    decision = _say_once(_weighed(op, choice, call, hw))
    footprint = decision.backend.footprint(call, hw)
    return decision if footprint is NOTHING else dataclasses.replace(decision, footprint=footprint)


def _weighed(op: str, choice: str, call: Any, hw: Capabilities) -> Decision:
    candidates = backends(op).values() if choice == AUTO else (backend(op, choice),)
    refusals: list[tuple[str, str]] = []
    declined: list[tuple[str, str]] = []
    for candidate in candidates:
        if choice == AUTO and (sentence := candidate.declines(call, hw)) is not None:
            declined.append((candidate.name, sentence))
            continue
        sentence = candidate.refuses(call, hw)
        if sentence is None:
            return Decision(op, choice, candidate, tuple(refusals), tuple(declined), candidate.adapts(call, hw))
        refusals.append((candidate.name, sentence))
    raise UnsupportedCall(op, choice, [*refusals, *declined])


def _say_once(decision: Decision) -> Decision:
    """Warn of a fall-back, but not where every decision is logged, or where the same was said before."""
    key = (decision.op, decision.backend.name, decision.refusals)
    if decision.refusals and key not in _said and not settings.debug_log_decisions:
        _said.add(key)
        _log.warning("%s falls back to %s (%s)", decision.op, decision.backend.name, decision.why)
    return decision
