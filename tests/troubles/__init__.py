"""What produces the messages of docs/troubleshooting.md: functions that run into each error, in the page's order.

A function raises the error (warnings are errors in tests), or returns the text where a message is logged.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

Producer = Callable[..., Any]

PRODUCERS: dict[str, list[Producer]] = defaultdict(list)
"""By heading: the name of the error, or of what says the message."""


def produces(heading: str) -> Callable[[Producer], Producer]:
    """Register a function as what produces the next message under a heading."""

    def register(producer: Producer) -> Producer:
        PRODUCERS[heading].append(producer)
        return producer

    return register


def all_producers() -> dict[str, list[Producer]]:
    """Every producer, by heading."""
    for topic in (
        "setting_values",
        "setting_sources",
        "scopes",
        "calls",
        "memory",
        "models",
        "ranks",
        "passes",
        "commands",
    ):
        importlib.import_module(f"troubles.{topic}")
    return PRODUCERS
