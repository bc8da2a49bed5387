"""The leak detector: a test that leaves settings changed behind fails, and the next one starts clean."""

from __future__ import annotations

import functools
from collections.abc import Generator
from typing import Any

import pytest

from dsa_config.testing.marks import Mark
from dsa_config.testing.reports import leaks_between


class SettingsLeak(UserWarning):
    """A test has left settings changed behind."""


class LeakDetector:
    """Compares what settings depend on before the test's own fixtures are set up and after they are torn down.

    What fixtures of a wider scope change while a test is under way is allowed: they are set up by the first test that
    needs them, and the next test is compared with what they have left.

    Args:
        fatal: a leak is an error of the test, not only a warning.
    """

    def __init__(self, *, fatal: bool) -> None:
        self._fatal = fatal
        self._start: Mark | None = None
        self._depth = 0
        self._ending: dict[Any, Mark] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        """Get between the test and what is around it.

        An item's own setup comes after those of its module and session, and starts with its fixtures; its own teardown
        comes after those of all its fixtures. No hook and no fixture is in either place.
        """
        around = {
            "setup": functools.partial(self._set_up, item.setup),
            "teardown": functools.partial(self._tear_down, item, item.teardown),
        }
        vars(item).update(around)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """Get out again: an item may be run more than once."""
        try:
            return (yield)
        finally:
            vars(item).pop("setup", None)
            vars(item).pop("teardown", None)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Allow what a fixture of a wider scope changes."""
        if fixturedef.scope == "function" or self._start is None:
            return (yield)
        before = Mark.now()
        self._depth += 1
        try:
            return (yield)
        finally:
            self._depth -= 1
            self._allow(before)
            # Runs first of the fixture's finalizers: with another parameter it is torn down during a later test.
            fixturedef.addfinalizer(functools.partial(self._note_end, fixturedef))

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Allow what a fixture of a wider scope changes back."""
        before = self._ending.pop(fixturedef, None)
        if before is not None:
            self._allow(before)

    def _note_end(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        if self._start is not None:
            self._ending[fixturedef] = Mark.now()

    def _allow(self, before: Mark) -> None:
        if self._start is not None and not self._depth:  # a fixture within a fixture is part of its change
            self._start.follow(before, Mark.now())

    def _set_up(self, setup: Any) -> None:
        self._start = Mark.now()
        setup()

    def _tear_down(self, item: pytest.Item, teardown: Any) -> None:
        try:
            teardown()
        finally:
            start, self._start = self._start, None
            assert start is not None
            self._report(item, start)

    def _report(self, item: pytest.Item, start: Mark) -> None:
        leaks = leaks_between(start, Mark.now())
        if not leaks:
            return
        lines = "".join(f"\n  {leak}" for leak in leaks)
        message = f"{item.nodeid} has left settings changed behind (the next test starts without):{lines}"
        if self._fatal:
            pytest.fail(message, pytrace=False)
        item.warn(SettingsLeak(message))
