"""The environment as a pydantic-settings source, for `Class()`: by field names, and with the parsers of live reads."""

from __future__ import annotations

from typing import Any, cast

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from dsa_config import lifecycle
from dsa_config.declare import LiveSettings, Setting, settings_of
from dsa_config.errors import BadValue, raise_together
from dsa_config.sources import env


class EnvironmentSource(PydanticBaseSettingsSource):
    """Gives pydantic the texts of the environment under the fields' own names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """The text of one field (None if unset), its key, and that it is not yet decoded."""
        found = env.find(self._settings()[field_name])
        return (None if found is None else found.text), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The texts of all fields that the constructor was not given.

        Raises:
            BadValue, BadValues: texts that their fields do not take.
        """
        wanted = {name: it for name, it in self._settings().items() if name not in self.current_state}
        found = {it: at for it in wanted.values() if (at := env.find(it)) is not None}
        errors: list[BadValue] = []
        for setting, place in found.items():
            try:
                env.parse(setting, place)
            except BadValue as error:
                errors.append(error)
        raise_together(errors)
        for setting, place in found.items():
            lifecycle.warn_once(setting, place)
        return {setting.name: place.text for setting, place in found.items()}

    def _settings(self) -> dict[str, Setting]:
        return settings_of(cast(type[LiveSettings], self.settings_cls))
