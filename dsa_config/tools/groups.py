"""Settings by topic, as the headings of their class group them."""

from __future__ import annotations

from dsa_config.declare import LiveSettings
from dsa_config.declared import Setting, settings_of
from dsa_config.errors import DeclarationError


def title_of(cls: type[LiveSettings]) -> str:
    """What a class calls its settings: the first line of its docstring, or its name."""
    lines = (cls.__doc__ or cls.__name__).strip().splitlines()
    return lines[0].rstrip(".")


def groups_of(cls: type[LiveSettings]) -> list[tuple[str, list[Setting]]]:
    """The headings of a class, each with the settings below it, in the order of declaration.

    Settings before the first heading stand under an empty one.

    Raises:
        DeclarationError: a heading begins at a field that there is not.
    """
    declared = settings_of(cls)
    for name in cls.headings:
        if name not in declared:
            raise DeclarationError(f"{cls.__name__}.headings: {name!r} is no field")
    groups: list[tuple[str, list[Setting]]] = []
    for name, setting in declared.items():
        if name in cls.headings or not groups:
            groups.append((cls.headings.get(name, ""), []))
        groups[-1][1].append(setting)
    return groups
