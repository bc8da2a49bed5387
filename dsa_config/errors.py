"""What can go wrong with a setting, each as a type with fields and one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsa_config.declared import Setting

_LONGEST_SHOWN = 200


class SettingError(Exception):
    """Any mistake in declaring, giving or naming a setting."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By message and fields: a process pool that sends an error home calls no constructor with the right arguments.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[SettingError], args: tuple[Any, ...], fields: dict[str, Any]) -> SettingError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class DeclarationError(SettingError, TypeError):
    """A settings class is declared in a way that cannot be read at call time."""


class Rejected(ValueError):
    """A value that a field does not take, before anyone knows where it came from: `reason`, and `allowed` if known."""

    def __init__(self, reason: str, allowed: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}; wanted {allowed}" if allowed else reason)


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
        super().__init__(f"{variable or name}={shown(given)} (from {origin}): {reason}; {name} takes {allowed}")

    @classmethod
    def of(cls, setting: Setting, *, variable: str | None, given: object, origin: object, reason: str) -> BadValue:
        """The error for a setting. Of a secret, neither the value nor a reason that may quote it is told."""
        if setting.secret:
            given, reason = setting.masked(given), "is refused by its type"
        return cls(
            name=setting.name,
            variable=variable,
            given=given,
            origin=str(origin),
            reason=reason,
            allowed=setting.allowed,
        )


class BadValues(SettingError, ValueError):
    """Several bad values found in one pass, so that all can be mended at once: `errors`."""

    def __init__(self, errors: Sequence[BadValue]) -> None:
        self.errors = tuple(errors)
        lines = "\n".join(f"  {error}" for error in self.errors)
        super().__init__(f"{len(self.errors)} settings have values that they do not take:\n{lines}")


class UnknownSetting(SettingError, AttributeError):
    """A name that no setting has: `unknown`, and `nearest`, the known names most like it."""

    def __init__(self, unknown: str, known: Iterable[str], *, among: str, hint: str = "") -> None:
        self.unknown = unknown
        self.nearest = tuple(nearest(unknown, known))
        if self.nearest and not hint:
            hint = f"did you mean {' or '.join(self.nearest)}?"
        super().__init__(f"{unknown!r} is not a setting of {among}{f'; {hint}' if hint else ''}")


class DeprecatedNameRefused(SettingError, ValueError):
    """A deprecated name is used where that is an error: `name` of the setting, `origin` of the name's value."""

    def __init__(self, name: str, message: str, origin: str) -> None:
        self.name = name
        self.origin = origin
        super().__init__(f"{message} (from {origin})")


class ConflictRefused(SettingError, ValueError):
    """Two names of one setting say different things in one source, where that is an error."""


class SourceError(SettingError):
    """A file or store of settings that cannot be used; nothing of it is: `source`, and `reasons`, one for each flaw."""

    def __init__(self, source: str, reasons: Sequence[str]) -> None:
        self.source = source
        self.reasons = tuple(reasons)
        told = reasons[0] if len(reasons) == 1 else "".join(f"\n  {reason}" for reason in reasons)
        super().__init__(f"{source}: {told}" if len(reasons) == 1 else f"{source} has {len(reasons)} errors:{told}")


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
    """The known names most like `name`, whatever its case, best first; or those that hold all of its words."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=2, cutoff=0.7)
    words = set(name.casefold().split("_"))
    alike = close or [folded for folded in by_folded if words <= set(folded.split("_"))][:2]
    return [by_folded[match] for match in alike]


def shown(given: object) -> str:
    """A value as it is written in Python, cut where it is long."""
    text = repr(given)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({len(text)} characters)"
