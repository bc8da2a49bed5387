"""What the settings are, read so that one that cannot be read keeps nothing else from being told."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from dsa_config import DSASettings, SettingError, settings
from dsa_config.declared import settings_of
from dsa_config.explain import Explanation
from dsa_config.tools.check import check
from dsa_exec.cli.doctor.report import Trouble
from dsa_exec.cli.report import SettingInForce


@dataclass(frozen=True, slots=True)
class SettingsState:
    """The settings as of now.

    Attributes:
        explanations: by name, of those that can be read.
        unreadable: by name, why the others cannot be.
    """

    explanations: dict[str, Explanation]
    unreadable: dict[str, SettingError]

    def defaults_for_unreadable(self) -> AbstractContextManager[Any]:
        """A scope in which every setting can be read: those that cannot have their defaults."""
        return settings.override(**{name: settings_of(DSASettings)[name].default for name in self.unreadable})

    def changed(self) -> list[SettingInForce]:
        """Those that are not at their defaults, for the report."""
        return [
            SettingInForce(name=it.name, value=_plain(it.value), source=it.source, origin=_plain(it.origin))
            for it in self.explanations.values()
            if it.source != "default"
        ]

    def troubles(self) -> list[Trouble]:
        """What `dsa config check` finds, and what came too late to have an effect."""
        findings = check(DSASettings)
        known = tuple(it.message for it in findings)
        found = [
            Trouble(
                severity=it.severity,
                kind=it.kind,
                name=it.name,
                message=it.message,
                origin=it.origin,
                suggestion=it.suggestion,
            )
            for it in findings
        ]
        said = ((it, warning) for it in self.explanations.values() for warning in it.warnings)
        late = [_too_late(*it) for it in said if not it[1].startswith(known)]
        return found + late


def settings_state() -> SettingsState:
    """Explain every setting that can be read."""
    explanations: dict[str, Explanation] = {}
    unreadable: dict[str, SettingError] = {}
    for name in settings_of(DSASettings):
        try:
            explanations[name] = settings.explain(name)
        except SettingError as error:
            unreadable[name] = error
    return SettingsState(explanations, unreadable)


def _too_late(it: Explanation, warning: str) -> Trouble:
    return Trouble(
        severity="warning", kind="too-late", name=it.name, message=warning, origin=it.origin, suggestion=None
    )


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; text of the environment may have bytes that are no UTF-8."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()
