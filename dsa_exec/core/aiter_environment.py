"""Where those who read a variable of ours themselves understand something else than our setting says.

aiter looks at its variables in the environment. It sees no value from a file, a flag, `settings.set`, an override or a
name that is no longer used, and it has its own words for on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dsa_config import DSASettings, settings
from dsa_config.declared import settings_of


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who reads a variable beside us.

    Attributes:
        who: in words.
        on: the texts that it takes for on; any other, and none, are off.
        any_case: capitals are as good.
    """

    who: str
    on: tuple[str, ...]
    any_case: bool

    def takes(self, text: str | None) -> bool:
        return text is not None and (text.lower() if self.any_case else text) in self.on


_READERS = {
    "aiter_enable_aot_gluon_pa_mqa_logits": _Reader(
        "aiter, which reads it when it is imported", ("1",), any_case=False
    ),
    "use_aiter": _Reader("an engine that reads it itself, as SGLang does", ("1", "true"), any_case=True),
}


@dataclass(frozen=True, slots=True)
class EnvironmentDifference:
    """A switch that is one thing here and another for who reads its variable.

    Attributes:
        setting: the field.
        variable: its environment name.
        value: what it is here.
        origin: what gave it that value here, in words.
        text: what the variable has; None: not set.
        reader: who reads it beside us.
        takes: what that one takes for on.
    """

    setting: str
    variable: str
    value: bool
    origin: str
    text: str | None
    reader: str
    takes: str

    def __str__(self) -> str:
        """The difference in a sentence."""
        here, there = ("on", "off") if self.value else ("off", "on")
        text = "not set" if self.text is None else repr(self.text)
        return (
            f"{self.setting} is {here} here (from {self.origin}), and {there} for {self.reader}: {self.variable} is "
            f"{text} in the environment, where {self.takes} is on"
        )


def aiter_environment_differences(env: Mapping[str, str]) -> list[EnvironmentDifference]:
    """Settings about aiter whose values, as of now, are not what others read from the environment.

    Args:
        env: the environment that the others see: of the process as C code sees it, or `os.environ`.
    """
    found = []
    for name, reader in _READERS.items():
        told = settings.explain(name)
        variable = settings_of(DSASettings)[name].variable
        text = env.get(variable)
        if reader.takes(text) != told.value:
            takes = " or ".join(reader.on)
            found.append(EnvironmentDifference(name, variable, bool(told.value), told.origin, text, reader.who, takes))
    return found
