"""Settings as a command line gives them: `NAME=TEXT`, under any name of theirs, read as the environment is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from dsa_config import lifecycle, settings
from dsa_config.declared import settings_of
from dsa_config.errors import BadValue, SettingError, UnknownSetting, raise_together
from dsa_config.names import Word
from dsa_config.origins import Origin

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings
    from dsa_config.declared import Setting
    from dsa_config.live import Live
    from dsa_config.renames import Deprecated


class BadAssignment(SettingError, ValueError):
    """A text that assigns nothing, or assigns again what was assigned: `text`, `origin`."""

    def __init__(self, text: str, origin: str, reason: str) -> None:
        self.text = text
        self.origin = origin
        super().__init__(f"{origin} {text!r}: {reason}")


@dataclass(frozen=True, slots=True)
class Assignments:
    """What was assigned.

    Attributes:
        given: what each setting is given, by field, as `settings.override(**given)` takes it.
        warnings: what there is to say of the names.
    """

    given: Mapping[str, Any]
    warnings: Sequence[str]


def read_assignments(texts: Sequence[str], origin: str, *, of: LiveSettings = settings) -> Assignments:
    """Read texts such as `fuse_topk=0` or `SGLANG_NSA_FUSE_TOPK=0`.

    Args:
        texts: a setting each.
        origin: the option that they came with.
        of: a live object.

    Raises:
        BadAssignment: no `=`, a setting that was assigned before, or a name that was removed.
        UnknownSetting: a name that no setting has.
        DeprecatedNameRefused: a deprecated name, where that is an error.
        BadValue, BadValues: texts that their settings do not take, all of them.
    """
    live = cast("Live", of)
    found: dict[tuple[str, Deprecated | None], dict[str, str]] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise BadAssignment(text, origin, "wanted NAME=VALUE, such as fuse_topk=0")
        for setting, entry in _owners(live, name, origin):
            names = found.setdefault((setting.name, entry), {})
            again = name in names or (names and entry is None)  # several names of one entry are read together
            if again or any(owner == setting.name and other is not entry for owner, other in found):
                raise BadAssignment(text, origin, f"{setting.name} was given a value before")
            names[name] = value
    declared = settings_of(live._class)
    words = [Word(declared[owner], entry, names, Origin(origin)) for (owner, entry), names in found.items()]
    policy = live._state.policy
    errors: list[BadValue] = []
    warnings: list[str] = []
    for word in words:
        lifecycle.require_allowed([word], policy)
        told = lifecycle.warnings_about([word], policy)
        if not lifecycle.in_force([word], policy):
            raise BadAssignment(" ".join(word.found), origin, told[0])
        warnings += told
        try:
            word.parse()
        except BadValue as error:
            errors.append(error)
    raise_together(errors)
    return Assignments({word.setting.name: word.today() for word in words}, tuple(warnings))


def _owners(live: Live, name: str, origin: str) -> list[tuple[Setting, Deprecated | None]]:
    """The settings that a name means, which is one unless it was split, with the entry of a deprecated name."""
    declared = settings_of(live._class)
    for setting in declared.values():
        if name in (setting.name, setting.variable):
            return [(setting, None)]
    owners: list[tuple[Setting, Deprecated | None]] = [
        (setting, entry) for setting in declared.values() for entry in setting.deprecated if name in entry.names
    ]
    if owners:
        return owners
    for tombstone in live._class.removed_names:
        if tombstone.name == name:
            raise BadAssignment(name, origin, str(tombstone))
    known = [*declared, *(variable for it in declared.values() for variable in it.variables)]
    raise UnknownSetting(name, known, among=live._class.__name__)
