"""Deprecated names: what is said about them, and that it is said once a process, at the line that read the setting."""

from __future__ import annotations

import threading
import warnings

from dsa_config.declare import Setting
from dsa_config.origins import outside_caller
from dsa_config.sources.env import Found


class DeprecatedName(FutureWarning):
    """A deprecated environment name is in use. A FutureWarning, because those who set variables must see it."""


_said: set[str] = set()
_said_lock = threading.Lock()


def warnings_about(setting: Setting, found: Found) -> list[str]:
    """What there is to say about the names under which a setting was found: conflicts and deprecated names."""
    messages = [
        f"{renamed.name} is deprecated since {renamed.since} and will be removed in {renamed.remove_in}: "
        f"use {setting.variable}"
        for renamed in setting.deprecated
        if renamed.name in found.texts
    ]
    if found.conflict:
        texts = ", ".join(f"{name}={text!r}" for name, text in found.conflict.items())
        messages.append(f"{setting.name} is set under several names to different text ({texts}): {found.variable} wins")
    return messages


def warn_once(setting: Setting, found: Found) -> None:
    """Say all that has not been said in this process, as `DeprecatedName` warnings."""
    for message in warnings_about(setting, found):
        # Our own record, not the warnings module's: its filters are reset by catch_warnings and keyed by line.
        with _said_lock:
            if message in _said:
                continue
            _said.add(message)
        _, level = outside_caller()
        warnings.warn(message, DeprecatedName, stacklevel=level)


def forget_warnings() -> None:
    """Let every message be said again. For tests."""
    with _said_lock:
        _said.clear()
