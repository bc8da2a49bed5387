"""An explanation of every setting at once."""

from __future__ import annotations

from dsa_config import settings
from dsa_config.declarations.dsa import DSASettings
from dsa_config.declared import settings_of
from dsa_config.errors import BadValue, raise_together
from dsa_config.explain import Explanation


def explain_all(*, changed_only: bool = False) -> list[Explanation]:
    """An explanation of every setting, in the order of declaration.

    Raises:
        BadValue, BadValues: settings whose values cannot be read, all of them.
    """
    explanations: list[Explanation] = []
    errors: list[BadValue] = []
    for name in settings_of(DSASettings):
        try:
            explanations.append(settings.explain(name))
        except BadValue as error:
            errors.append(error)
    raise_together(errors)
    return [it for it in explanations if it.source != "default"] if changed_only else explanations
