"""Names that are nearly a setting's and have no effect, for commands that would go on as if nothing had been set."""

from __future__ import annotations

from dsa_config import DSASettings, settings
from dsa_config.controls import sound_controls_of
from dsa_config.loading import Sources
from dsa_config.tools.check import check
from dsa_config.tools.gather import gather
from dsa_config.tools.neighbours import Neighbourhood


def unknown_name_warnings() -> list[str]:
    """A sentence for each such name: what `dsa config check` says of it, where it stands, and what was meant.

    Looks at the names of the environment, and at those of dotenv files and secrets folders that control variables name.

    Raises:
        SettingError: a setting was given a value in the program that the environment of a process cannot have.
    """
    if not _has_near_names():
        return []
    found = (it for it in check(DSASettings) if it.kind == "unknown-name")
    return [f"{it.message} ({it.origin}); {it.suggestion}" for it in found]


def _has_near_names() -> bool:
    """Whether there is anything to tell: a whole check reads the source of whole packages, which takes seconds."""
    controls, _ = sound_controls_of(DSASettings)
    mentioned = gather(DSASettings, Sources().settled(controls)).mentioned
    near = Neighbourhood(DSASettings).near
    return any(near(name) is not None for name in (*settings.child_env(), *mentioned))
