"""The pytest plugin: a fixture that overrides settings for one test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings


@pytest.fixture
def settings_override() -> Iterator[Callable[..., None]]:
    """Override settings until the test ends: `settings_override(fuse_topk=False)`, as often as wanted.

    The first argument may be another live object than the one of DSA.
    """
    from dsa_config import settings

    with contextlib.ExitStack() as scopes:

        def override(live: LiveSettings = settings, /, **values: object) -> None:
            scopes.enter_context(live.override(**values))

        yield override
