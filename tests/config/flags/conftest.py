"""A flag file at hand: `flags(...)` writes one and loads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsa_config import DSASettings
from dsa_config.flags.rules import FlagSet, load_flags


@pytest.fixture
def flags(tmp_path: Path) -> Callable[..., FlagSet]:
    """Loads a file of these flags; `cls`, `evaluators` and whole texts can be given too."""

    def load(given: dict[str, Any] | str, cls: Any = DSASettings, **more: Any) -> FlagSet:
        path = tmp_path / "flags.json"
        path.write_text(given if isinstance(given, str) else json.dumps({"flags": given, **more}, indent=1), "utf-8")
        return load_flags(path, cls)

    return load
