"""Deprecated names through the versions: read with a warning, then refused, then without effect but known for ever.

What is said is said once a process, at the line that read the setting.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping, Sequence

from dsa_config.errors import BadValue, ConflictRefused, DeprecatedNameRefused, shown
from dsa_config.names import Word, conflict_of
from dsa_config.origins import outside_caller
from dsa_config.policy import Policy
from dsa_config.renames import Merged, Phase, Removed


class DeprecatedName(FutureWarning):
    """A deprecated or removed name is in use. A FutureWarning, because those who set variables must see it."""


def in_force(words: Sequence[Word], policy: Policy) -> list[Word]:
    """The words that count: not of removed names, and not about a setting that the version does not have."""
    return [word for word in words if policy.phase(word) != "removed" and policy.has(word.setting)]


def require_allowed(words: Sequence[Word], policy: Policy) -> None:
    """Refuse names whose time is over, and under a strict policy deprecated names and conflicts.

    Raises:
        DeprecatedNameRefused: a name that is an error at this version, or any deprecated name if those are fatal.
        ConflictRefused: two names say different things, and that is fatal.
    """
    for word in words:
        phase = policy.phase(word)
        if phase == "refused" or (phase == "deprecated" and policy.fatal_deprecations):
            raise DeprecatedNameRefused(word.setting.name, _about_name(word, phase), str(word.origin))
    if policy.fatal_conflicts and (conflict := conflict_of(in_force(words, policy))):
        raise ConflictRefused(_about_conflict(words[0], conflict))


def warnings_about(words: Sequence[Word], policy: Policy) -> list[str]:
    """What there is to say about the names of one source's words."""
    return list(_messages(words, policy).values())


def warn_once(words: Sequence[Word], policy: Policy) -> None:
    """Say what has not been said of these names in this process, as `DeprecatedName` warnings."""
    for subject, message in _messages(words, policy).items():
        _say(f"{words[0].setting.variable} {subject}", message)


def warn_of_removed(tombstones: Sequence[Removed]) -> None:
    """Say once of each tombstone whose name is in use that it has no effect."""
    for tombstone in tombstones:
        _say(tombstone.name, str(tombstone))


def forget_warnings() -> None:
    """Let everything be said again. For tests."""
    with _said_lock:
        _said.clear()


_said: set[str] = set()
_said_lock = threading.Lock()


def _say(subject: str, message: str) -> None:
    # Our own record, not the warnings module's: its filters are reset by catch_warnings and keyed by line.
    with _said_lock:
        if subject in _said:
            return
        _said.add(subject)
    _, level = outside_caller()
    warnings.warn(message, DeprecatedName, stacklevel=level)


def _messages(words: Sequence[Word], policy: Policy) -> dict[str, str]:
    """Messages by what each is about: a deprecated name, or the names that are in conflict."""
    messages = {}
    for word in words:
        phase = policy.phase(word)
        if not policy.has(word.setting):
            names = ", ".join(word.found)
            messages[names] = f"{names} has no effect: {word.setting.name} is there since {word.setting.introduced}"
        elif phase != "current":
            messages[" ".join([phase, *word.found])] = _about_name(word, phase)
    counting = in_force(words, policy)
    if conflict := conflict_of(counting):
        messages[f"conflict {' '.join(conflict)}"] = f"{_about_conflict(words[0], conflict)}: {_winner(counting)} wins"
    return messages


def _about_name(word: Word, phase: Phase) -> str:
    entry = word.entry
    assert entry is not None
    names, use = " and ".join(word.found), f"use {replacement(word)}"
    several = len(word.found) > 1
    if phase == "removed":
        verbs = ("were", "have") if several else ("was", "has")
        return f"{names} {verbs[0]} removed in {entry.remove_in} and {verbs[1]} no effect: {use}"
    verb = "are" if several else "is"
    if phase == "refused":
        return f"{names} {verb} refused since {entry.error_in}: {use}"
    return f"{names} {verb} deprecated since {entry.since} and will be removed in {entry.remove_in}: {use}"


def replacement(word: Word) -> str:
    """The environment name to use instead of a deprecated one; with the text to give it, where the old
    name's text meant something else.
    """
    setting, entry = word.setting, word.entry
    if entry is None or entry.convert is None or setting.secret:
        return setting.variable
    try:
        return f"{setting.variable}={setting.text_of(word.parse())}"
    except BadValue:
        return setting.variable


def _about_conflict(word: Word, conflict: Mapping[str, object]) -> str:
    mask = word.setting.masked
    texts = ", ".join(f"{name}={shown(mask(text))}" for name, text in conflict.items())
    return f"{word.setting.name} is set under several names to different text ({texts})"


def _winner(words: Sequence[Word]) -> str:
    first = words[0]
    return first.entry.name if isinstance(first.entry, Merged) else next(iter(first.found))


def _renew_lock() -> None:
    """In a forked child: the lock may have been held by a thread that is gone."""
    global _said_lock
    _said_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
