"""What the shell offers where a command wants the name of a setting."""

from __future__ import annotations

from dsa_config.declarations.dsa import DSASettings
from dsa_config.declared import settings_of


def setting_names(incomplete: str) -> list[tuple[str, str]]:
    """Names that begin with what was typed, each with what the setting is for: fields, and once it begins like one,
    environment names.
    """
    declared = settings_of(DSASettings).values()
    named = [
        (name, it.description) for it in declared for name in ((it.name, *it.variables) if incomplete else (it.name,))
    ]
    return [(name, description) for name, description in named if name.startswith(incomplete)]
