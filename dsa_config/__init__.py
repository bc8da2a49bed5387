"""Settings read at call time: typed, validated, overridable in a scope, and able to say where they came from.

from dsa_config import settings

settings.fuse_topk                                # as of now
with settings.override(fuse_topk=False): ...      # in this thread or task
settings.set(fuse_topk=False)                     # in this process
settings.explain("fuse_topk")                     # and why
"""

from dsa_config.declarations.dsa import DSASettings
from dsa_config.declare import Effect, LiveSettings, Renamed, setting
from dsa_config.errors import (
    AssignmentRefused,
    BadValue,
    BadValues,
    DeclarationError,
    SettingError,
    UnknownSetting,
)
from dsa_config.explain import Explanation, LayerReport
from dsa_config.lifecycle import DeprecatedName
from dsa_config.live import live

__version__ = "0.1.0"

settings = live(DSASettings)
"""The settings of DeepSeek Sparse Attention, as of now."""

__all__ = [
    "AssignmentRefused",
    "BadValue",
    "BadValues",
    "DSASettings",
    "DeclarationError",
    "DeprecatedName",
    "Effect",
    "Explanation",
    "LayerReport",
    "LiveSettings",
    "Renamed",
    "SettingError",
    "UnknownSetting",
    "live",
    "setting",
    "settings",
]
