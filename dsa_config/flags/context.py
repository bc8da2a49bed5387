"""Who asks for a flag: an immutable, hashable set of facts such as model, layer, rank and request."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import date
from operator import itemgetter
from typing import Any

from dsa_config.errors import shown
from dsa_config.flags.errors import BadContext

TARGETING_KEY = "targetingKey"
"""The key whose value fractional rollouts are sticky to: a request or user id."""

RESERVED = "$flagd"
"""The key under which flagd gives rules the flag's name and the time."""

_DEEPEST = 32


class FlagContext(Mapping[str, Any]):
    """The evaluation context of a flag: `FlagContext(model="glm-5", layer=3, targetingKey=request_id)`.

    Values are text, integers, finite floats, booleans, None, and lists and mappings of these; a date is kept as text
    in ISO format. Contexts with equal
    values of equal types are equal and hash alike, so that an evaluation is kept once for all of them.
    """

    __slots__ = ("_frozen", "_hash")

    _frozen: dict[str, tuple[Any, ...]]
    _hash: int

    def __init__(self, /, **values: object) -> None:
        self._keep({key: _checked(key, value) for key, value in values.items()})

    @classmethod
    def of(cls, values: Mapping[str, object]) -> FlagContext:
        """The context with the values of a mapping.

        Raises:
            BadContext: a key that is not text, or a value that a context cannot hold.
        """
        for key in values:
            if not isinstance(key, str):
                raise BadContext(str(key), key, f"the key {shown(key)} is not text")
        return values if isinstance(values, FlagContext) else FlagContext(**values)

    def _keep(self, frozen: dict[str, tuple[Any, ...]]) -> None:
        object.__setattr__(self, "_frozen", frozen)
        object.__setattr__(self, "_hash", hash(frozenset(frozen.items())))

    @property
    def targeting_key(self) -> str | None:
        """What fractional rollouts are sticky to, if it is known."""
        key: str | None = self.get(TARGETING_KEY)
        return key

    def merged(self, other: Mapping[str, object]) -> FlagContext:
        """Both contexts in one; where both have a key, the other's value."""
        made = FlagContext.__new__(FlagContext)
        made._keep({**self._frozen, **FlagContext.of(other)._frozen})
        return made

    def __getitem__(self, key: str) -> Any:
        return _thawed(self._frozen[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._frozen)

    def __len__(self) -> int:
        return len(self._frozen)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FlagContext):
            return NotImplemented
        return self is other or (self._hash == other._hash and self._frozen == other._frozen)

    def __setattr__(self, name: str, value: object) -> None:
        self.__delattr__(name)

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a FlagContext cannot be changed: use merged() to make another")

    def __reduce__(self) -> tuple[Any, ...]:
        return FlagContext.of, (dict(self),)

    def __repr__(self) -> str:
        return f"FlagContext({', '.join(f'{key}={value!r}' for key, value in self.items())})"


EMPTY = FlagContext()
"""The context of which nothing is known."""


def _checked(key: str, value: object) -> tuple[Any, ...]:
    if key == RESERVED:
        raise BadContext(key, value, "the name is taken: flagd puts the flag's name and the time there")
    frozen = _frozen(key, value, _DEEPEST)
    if key == TARGETING_KEY and frozen[0] not in ("text", "none"):
        raise BadContext(key, value, f"{shown(value)} is not text")
    return frozen


def _frozen(key: str, value: object, depth: int) -> tuple[Any, ...]:
    """A value with its type in front: 1, 1.0 and True are equal in Python, and not to a rule."""
    match value:
        case None:
            return ("none",)
        case bool():
            return ("boolean", value)
        case int():
            return ("integer", int(value))
        case float() if math.isfinite(value):
            return ("float", float(value) + 0.0)  # -0.0 becomes 0.0, which it is equal to
        case str():
            return ("text", _text(key, value))
        case date():  # and a date with a time; OpenFeature allows both
            return ("text", value.isoformat())
        case list() | tuple() | Mapping() if depth == 0:
            raise BadContext(key, value, f"it is nested more than {_DEEPEST} deep")
        case list() | tuple():
            return ("list", tuple(_frozen(f"{key}.{place}", item, depth - 1) for place, item in enumerate(value)))
        case Mapping():
            items = []
            for name, item in value.items():
                if not isinstance(name, str):
                    raise BadContext(key, value, f"a key of its mapping is {shown(name)}, not text")
                items.append((_text(key, name), _frozen(f"{key}.{name}", item, depth - 1)))
            return ("mapping", tuple(sorted(items, key=itemgetter(0))))
        case _:
            takes = "text, integers, finite floats, booleans, None, and lists and mappings of these"
            raise BadContext(key, value, f"{shown(value)} is of type {type(value).__name__}; a context takes {takes}")


def _text(key: str, text: str) -> str:
    text = str.__str__(text)  # of a subclass, the plain text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadContext(key, text, f"{shown(text)} is not Unicode text: it cannot be written as UTF-8") from None
    return text


def _thawed(frozen: tuple[Any, ...]) -> Any:
    match frozen:
        case ("list", items):
            return [_thawed(item) for item in items]
        case ("mapping", items):
            return {name: _thawed(item) for name, item in items}
        case ("none",):
            return None
        case _:
            return frozen[1]
