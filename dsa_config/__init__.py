"""Settings read at call time: typed, validated, overridable in a scope, and able to say where they came from.

from dsa_config import settings

settings.fuse_topk                                # as of now
with settings.override(fuse_topk=False): ...      # in this thread or task
settings.set(fuse_topk=False)                     # in this process
settings.explain("fuse_topk")                     # and why
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsa_config.declarations.dsa import DSASettings
from dsa_config.declare import LiveSettings, setting
from dsa_config.declared import Effect
from dsa_config.errors import (
    AssignmentRefused,
    BadValue,
    BadValues,
    ConflictRefused,
    DeclarationError,
    DeprecatedNameRefused,
    SettingError,
    SourceError,
    UnknownSetting,
)
from dsa_config.lifecycle import DeprecatedName
from dsa_config.live import live
from dsa_config.moments import TooLate
from dsa_config.renames import Merged, Removed, Renamed, RenamedPrefix, inverted, scaled
from dsa_config.version import __version__

if TYPE_CHECKING:
    from dsa_config.explain import Explanation, LayerReport

settings = live(DSASettings)
"""The settings of DeepSeek Sparse Attention, as of now."""

__all__ = [
    "AssignmentRefused",
    "BadValue",
    "BadValues",
    "ConflictRefused",
    "DSASettings",
    "DeclarationError",
    "DeprecatedName",
    "DeprecatedNameRefused",
    "Effect",
    "Explanation",
    "LayerReport",
    "LiveSettings",
    "Merged",
    "Removed",
    "Renamed",
    "RenamedPrefix",
    "SettingError",
    "SourceError",
    "TooLate",
    "UnknownSetting",
    "__version__",
    "inverted",
    "live",
    "scaled",
    "setting",
    "settings",
]


def __getattr__(name: str) -> Any:
    """Names that few programs need, and that would slow down the import of all."""
    if name in ("Explanation", "LayerReport"):
        from dsa_config import explain

        return getattr(explain, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
