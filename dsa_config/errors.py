"""What can go wrong with a setting, each as a type with fields and one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_LONGEST_SHOWN = 200


class SettingError(Exception):
    """Any mistake in declaring, giving or naming a setting."""


class DeclarationError(SettingError, TypeError):
    """A settings class is declared in a way that cannot be read at call time."""


class Rejected(ValueError):
    """A value that a field does not take, before anyone knows where it came from."""


class BadValue(SettingError, ValueError):
    """A value that its setting does not take: `name`, `variable`, `given`, `origin`, `reason`, `allowed`."""

    def __init__(
        self, *, name: str, variable: str | None, given: object, origin: str, reason: str, allowed: str
    ) -> None:
        self.name = name
        self.variable = variable
        self.given = given
        self.origin = origin
        self.reason = reason
        self.allowed = allowed
        super().__init__(f"{variable or name}={_shown(given)} (from {origin}): {reason}; {name} takes {allowed}")


class BadValues(SettingError, ValueError):
    """Several bad values found in one pass, so that all can be mended at once: `errors`."""

    def __init__(self, errors: Sequence[BadValue]) -> None:
        self.errors = tuple(errors)
        lines = "\n".join(f"  {error}" for error in self.errors)
        super().__init__(f"{len(self.errors)} settings have values that they do not take:\n{lines}")


class UnknownSetting(SettingError, AttributeError):
    """A name that no setting has: `unknown`, and `nearest`, the known names most like it."""

    def __init__(self, unknown: str, known: Iterable[str], *, among: str) -> None:
        self.unknown = unknown
        self.nearest = tuple(nearest(unknown, known))
        hint = f"; did you mean {' or '.join(self.nearest)}?" if self.nearest else ""
        super().__init__(f"{unknown!r} is not a setting of {among}{hint}")


class AssignmentRefused(SettingError, AttributeError):
    """A field of the live object was assigned to, which would hide the setting from every other layer."""

    def __init__(self, name: str) -> None:
        self.setting = name
        super().__init__(
            f"{name} is read live and cannot be assigned or patched: use settings.set({name}=...) for the whole "
            f"process, `with settings.override({name}=...):` for a scope, "
            f"or the pytest fixture settings_override({name}=...) in a test"
        )


def raise_together(errors: Sequence[BadValue]) -> None:
    """Raise nothing for no error, the error itself for one, and all of them as `BadValues` for more."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BadValues(errors)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names most like `name`, whatever its case, best first."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    return [by_folded[match] for match in difflib.get_close_matches(name.casefold(), by_folded, n=2, cutoff=0.7)]


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({len(text)} characters)"
