"""The single choices that `auto` has: a backend of an op, or for a selection that is made of two ops, one of each."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from benchmarks.grid.record import Phase
from dsa_exec.dispatch.registry import backends
from dsa_exec.dispatch.trace import Trace

SPECIFICATION = "torch"
NEVER_HERE = frozenset({SPECIFICATION, "aiter"})
"""The specification is no contender, and the other is of other hardware."""


class Choice(NamedTuple):
    """Backends that are named.

    Attributes:
        name: in words.
        settings: that name them.
    """

    name: str
    settings: dict[str, str]


def choices(op: str, phase: Phase) -> list[Choice]:
    """The single choices for an op, in the order in which `auto` would take them."""
    found = [Choice(name, {f"{op}_backend": name}) for name in _contenders(op)]
    if op != "index_select":
        return found
    scoring = scoring_op(phase)
    for scores, picks in itertools.product(_contenders(scoring), _contenders("topk")):
        parts = {f"{scoring}_backend": scores, "topk_backend": picks}
        found.append(Choice(_parts(scores, picks), {f"{op}_backend": SPECIFICATION, **parts}))
    return found


def chosen(op: str, phase: Phase, trace: Trace) -> str:
    """What was chosen for a call of an op, by the names of `choices`; several for several chunks with ` / `."""

    def of(part: str) -> str:
        return " / ".join(name for named, name in trace.decisions if named == part)

    whole = of(op)
    return _parts(of(scoring_op(phase)), of("topk")) if (op, whole) == ("index_select", SPECIFICATION) else whole


def scoring_op(phase: Phase) -> str:
    """The op that scores the keys of a selection."""
    return "mqa_logits" if phase == "prefill" else "paged_mqa_logits"


def _contenders(op: str) -> list[str]:
    return [name for name in backends(op) if name not in NEVER_HERE]


def _parts(scores: str, picks: str) -> str:
    return f"logits by {scores}, top-k by {picks}"
