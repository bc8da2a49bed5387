"""Groups of ranks: two that serve many tests, and those that a test breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from multi_rank.groups import Group


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Two ranks."""
    group = Group(2, tmp_path_factory.mktemp("two") / "ranks")
    yield group
    group.close()


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Four ranks."""
    group = Group(4, tmp_path_factory.mktemp("four") / "ranks")
    yield group
    group.close()


@pytest.fixture
def new_group(tmp_path) -> Iterator[Callable[[int], Group]]:
    """A function that makes a group for one test alone."""
    made: list[Group] = []

    def make(size: int) -> Group:
        made.append(Group(size, tmp_path / f"ranks{len(made)}"))
        return made[-1]

    yield make
    for group in made:
        group.close()
