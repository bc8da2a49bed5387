"""The order of the layers, and nothing else knows it.

Weakest first: default < feature flag < config file < cloud store < secrets folder < dotenv < environment
< `settings.set()` (this process) < `settings.override()` (this context).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dsa_config.names import Word
from dsa_config.origins import Origin

if TYPE_CHECKING:
    from dsa_config.declared import Setting

Source = Literal["override", "set", "environment", "dotenv", "secrets", "cloud", "file", "flag", "default"]

LOADED: tuple[Source, ...] = ("dotenv", "secrets", "cloud", "file")
"""The layers that `load` reads, strongest first."""

UNREAD: Any = object()
"""In place of a value that has not been parsed yet."""

DECLARATION = Origin("the declaration")


class Given(NamedTuple):
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
    given: Any = field(repr=False)  # it may be a secret
    word: Word | None = None
    value: Any = field(default=UNREAD, repr=False)

    @property
    def is_read(self) -> bool:
        """The value is known to be good."""
        return self.value is not UNREAD

    def read(self) -> Any:
        """The layer's value.

        Raises:
            BadValue: what was given is not a value of this setting.
        """
        return self.value if self.word is None or self.is_read else self.word.parse()

    def as_constructor_takes_it(self) -> Any:
        """What gives the settings class this value: as it was given, but in today's meaning."""
        return self.given if self.word is None else self.word.today()


def strongest_first(
    setting: Setting,
    *,
    overridden: Given | None,
    process: Given | None,
    words: Sequence[Word],
    loaded: Sequence[Layer],
    flagged: Callable[[], Given | None] | None,
) -> Iterator[Layer]:
    """Every layer that has a word on the setting, strongest first; the last is always the default.

    Lazy: a caller who needs the winner alone takes the first.

    Args:
        setting: which one.
        overridden: what this context's innermost override gives, if any.
        process: what `settings.set()` gives, if anything.
        words: what the environment says, strongest first.
        loaded: the layers of loaded sources, strongest first.
        flagged: evaluates the setting's feature flag, if it has one.
    """
    if overridden is not None:
        yield Layer(setting, "override", overridden.origin, overridden.given, value=overridden.value)
    if process is not None:
        yield Layer(setting, "set", process.origin, process.given, value=process.value)
    for word in words:
        yield Layer(setting, "environment", word.origin, word.given, word=word)
    yield from loaded
    if flagged is not None and (flag := flagged()) is not None:
        yield Layer(setting, "flag", flag.origin, flag.given, value=flag.value)
    yield Layer(setting, "default", DECLARATION, setting.given_default, value=setting.default)
