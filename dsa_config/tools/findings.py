"""What a check finds: one finding a problem, each with the place and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]
Kind = Literal[
    "bad-value",
    "conflict",
    "combination",
    "removed-name",
    "deprecated-name",
    "unknown-name",
    "without-effect",
    "unusable-source",
    "unread-setting",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem with what gives settings their values. Values of secrets are never in it.

    Attributes:
        severity: error: the settings cannot be read, or not as they were meant. warning: something to look at.
        kind: which problem.
        name: the environment name, file key or source that it is about.
        setting: the field that it is about, or None.
        origin: where it is: a variable, or `FILE:LINE`.
        message: what is wrong, in one sentence.
        suggestion: what to do, or None.
    """

    severity: Severity
    kind: Kind
    name: str
    setting: str | None
    origin: str
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        parts = [f"{self.severity}: {self.message}", f"  in {self.origin}"]
        return "\n".join(parts if self.suggestion is None else [*parts, f"  {self.suggestion}"])


def exit_code(findings: tuple[Finding, ...]) -> int:
    """0: nothing found; 1: warnings only; 2: errors."""
    severities = {finding.severity for finding in findings}
    return 2 if "error" in severities else 1 if severities else 0
