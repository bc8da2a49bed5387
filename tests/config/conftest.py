"""Live objects that a test makes for itself are left as they were found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from own_settings import clean

from dsa_config import settings


@pytest.fixture(autouse=True)
def _left_clean(_declared_defaults: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    monkeypatch.undo()
    clean(settings)
