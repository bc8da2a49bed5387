"""The order of the layers, and nothing else knows it.

Weakest first: default < environment < `settings.set()` (this process) < `settings.override()` (this context).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dsa_config.declare import Setting
from dsa_config.origins import Origin
from dsa_config.sources import env

Source = Literal["override", "set", "environment", "default"]

_DEFAULT_ORIGIN = Origin("the declaration")


@dataclass(frozen=True, slots=True)
class Given:
    """A value given in the program: as it was given, as the field's parser understood it, and by whom."""

    given: Any
    value: Any
    origin: Origin


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's word on one setting. `read` gives the value, or raises BadValue for a text that is none."""

    setting: Setting
    source: Source
    origin: Origin
    given: Any
    found: env.Found | None = None
    value: Any = None

    def read(self) -> Any:
        """The layer's value.

        Raises:
            BadValue: the environment's text is not a value of this setting.
        """
        return self.value if self.found is None else env.parse(self.setting, self.found)


def strongest_first(
    setting: Setting, overridden: Given | None, process: Given | None, texts: Mapping[str, str]
) -> Iterator[Layer]:
    """Every layer that has a word on the setting, strongest first; the last is always the default.

    Lazy: a caller who needs the winner alone takes the first.

    Args:
        setting: which one.
        overridden: what this context's innermost override gives, if any.
        process: what `settings.set()` gives, if anything.
        texts: the setting's names that the environment has, strongest first, each with its text.
    """
    if overridden is not None:
        yield Layer(setting, "override", overridden.origin, overridden.given, value=overridden.value)
    if process is not None:
        yield Layer(setting, "set", process.origin, process.given, value=process.value)
    # Each name that is set has its word; the first of them is the environment's.
    for place in range(len(texts)):
        found = env.find(setting, dict(list(texts.items())[place:]))
        assert found is not None
        yield Layer(setting, "environment", found.origin, found.text, found=found)
    yield Layer(setting, "default", _DEFAULT_ORIGIN, setting.given_default, value=setting.default)
