"""Deprecated names: what is said about them, and that it is said once a process, at the line that read the setting."""

from __future__ import annotations

import os
import threading
import warnings

from dsa_config.declare import Setting
from dsa_config.errors import shown
from dsa_config.origins import outside_caller
from dsa_config.sources.env import Found


class DeprecatedName(FutureWarning):
    """A deprecated environment name is in use. A FutureWarning, because those who set variables must see it."""


_said: set[tuple[str, str]] = set()
_said_lock = threading.Lock()


def warnings_about(setting: Setting, found: Found) -> list[str]:
    """What there is to say about the names under which a setting was found: conflicts and deprecated names."""
    return list(_messages(setting, found).values())


def warn_once(setting: Setting, found: Found) -> None:
    """Say what has not been said of these names in this process, as `DeprecatedName` warnings."""
    for subject, message in _messages(setting, found).items():
        # Our own record, not the warnings module's: its filters are reset by catch_warnings and keyed by line.
        with _said_lock:
            if (setting.variable, subject) in _said:
                continue
            _said.add((setting.variable, subject))
        _, level = outside_caller()
        warnings.warn(message, DeprecatedName, stacklevel=level)


def forget_warnings() -> None:
    """Let everything be said again. For tests."""
    with _said_lock:
        _said.clear()


def _messages(setting: Setting, found: Found) -> dict[str, str]:
    """Messages by what each is about: a deprecated name, or the names that are in conflict."""
    messages = {
        renamed.name: f"{renamed.name} is deprecated since {renamed.since} and will be removed in {renamed.remove_in}: "
        f"use {setting.variable}"
        for renamed in setting.deprecated
        if renamed.name in found.texts
    }
    if found.conflict:
        texts = ", ".join(f"{name}={shown(text)}" for name, text in found.conflict.items())
        messages[" ".join(found.conflict)] = (
            f"{setting.name} is set under several names to different text ({texts}): {found.variable} wins"
        )
    return messages


def _renew_lock() -> None:
    """In a forked child: the lock may have been held by a thread that is gone."""
    global _said_lock
    _said_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
