"""The environment as a pydantic-settings source, for `Class()`: by field names, and with the parsers of live reads."""

from __future__ import annotations

from typing import Any, cast

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from dsa_config import lifecycle
from dsa_config.controls import controls_of
from dsa_config.declare import LiveSettings
from dsa_config.declared import settings_of
from dsa_config.errors import BadValue, raise_together
from dsa_config.names import Word
from dsa_config.policy import Policy, policy_of
from dsa_config.sources import env


class EnvironmentSource(PydanticBaseSettingsSource):
    """Gives pydantic the texts of the environment under the fields' own names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """What the environment gives one field (None if nothing), its key, and that it is not yet decoded."""
        words = self._in_force(field_name, _policy_now(self._class()))
        return (words[0].today() if words else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        """What the environment gives all fields that the constructor was not given.

        Raises:
            BadValue, BadValues: texts that their fields do not take.
            DeprecatedNameRefused, ConflictRefused: names that are errors.
        """
        policy = _policy_now(self._class())
        wanted = [name for name in settings_of(self._class()) if name not in self.current_state]
        found = {name: words for name in wanted if (words := self._in_force(name, policy))}
        errors: list[BadValue] = []
        for words in found.values():
            try:
                words[0].parse()
            except BadValue as error:
                errors.append(error)
        raise_together(errors)
        for name in wanted:
            lifecycle.warn_once(env.words_in(settings_of(self._class())[name]), policy)
        return {name: words[0].today() for name, words in found.items()}

    def _in_force(self, name: str, policy: Policy) -> list[Word]:
        words = env.words_in(settings_of(self._class())[name])
        lifecycle.require_allowed(words, policy)
        return lifecycle.in_force(words, policy)

    def _class(self) -> type[LiveSettings]:
        return cast(type[LiveSettings], self.settings_cls)


def _policy_now(cls: type[LiveSettings]) -> Policy:
    controls = controls_of(cls)
    return policy_of(
        cls,
        controls.emulate_version,
        fatal_deprecations=controls.fatal_deprecations,
        fatal_conflicts=controls.fatal_conflicts,
    )
