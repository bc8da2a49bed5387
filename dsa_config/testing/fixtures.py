"""Fixtures that give settings for one test and put back what was there before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings
    from dsa_config.layers import Given
    from dsa_config.live import Live
    from dsa_config.read import Reader


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


@pytest.fixture
def settings_set() -> Iterator[Callable[..., None]]:
    """Set settings for the whole process until the test ends: `settings_set(fuse_topk=False)`, as often as wanted.

    Then they are what they were: also not set at all. The first argument may be another live object.
    """
    from dsa_config import settings

    before: dict[Live, dict[Reader, Given | None]] = {}

    def give(live: LiveSettings = settings, /, **values: object) -> None:
        changed = cast("Live", live)
        kept = before.setdefault(changed, {})
        readers = [changed._readers[name] for name in values if name in changed._readers]
        earlier = {reader: reader.process for reader in readers if reader not in kept}
        live.set(**values)
        kept.update(earlier)

    yield give
    for live, kept in before.items():
        live._state.moments.forget()  # to take a value back is not too late for anything
        live._give(kept)


@pytest.fixture
def settings_load() -> Iterator[Callable[..., None]]:
    """Load sources until the test ends: `settings_load(file="dsa.toml")`, with the arguments of `settings.load`.

    Then what was loaded before is back, or nothing is. The first argument may be another live object.
    """
    from dsa_config import settings
    from dsa_config.testing.marks import Sourced, put_back

    before: dict[Live, Sourced] = {}

    def load(live: LiveSettings = settings, /, **sources: Any) -> None:
        changed = cast("Live", live)
        before.setdefault(changed, Sourced.of(changed._state))
        live.load(**sources)

    yield load
    for live, sourced in before.items():
        live._state.moments.forget()
        put_back(live._state, sourced)


@pytest.fixture(autouse=True)
def _settings_moments() -> Iterator[None]:
    """Caches that a test allocates, and graphs that it captures, end with it: no later test's change is too late."""
    from dsa_config.live import _live_objects
    from dsa_config.moments import Moments

    before = {cls: live._state.moments.copy() for cls, live in tuple(_live_objects.items())}
    yield
    for cls, live in tuple(_live_objects.items()):
        live._state.moments = before.get(cls, Moments())


@pytest.fixture(autouse=True)
def _settings_matrix(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold the combination of the marker `settings_matrix`, if the test has one, before other fixtures are set up."""
    with contextlib.ExitStack() as scopes:
        for live, values in getattr(request, "param", ()):
            scopes.enter_context(live.override(**values))
        yield
