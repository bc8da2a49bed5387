"""Our read, in every state that has a price of its own.

Each state has a setting of its own, of the shape of `fuse_topk`: a boolean with a deprecated name. The environment of
each is made once, as in a program: a setting whose variables change before every slice would be timed while it settles.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic_settings import SettingsConfigDict

from benchmarks.reads.bars import PULL, PULL_CANONICAL, PULL_DEPRECATED, PULL_ELSEWHERE
from benchmarks.reads.contender import Contender, Subject
from dsa_config import LiveSettings, Renamed, live, setting


def _renamed(name: str) -> list[Renamed]:
    return [Renamed(f"BENCH_OLD_{name}", since="0.1", remove_in="1.0")]


class Ours(LiveSettings):
    """One setting for each state."""

    model_config = SettingsConfigDict(env_prefix="BENCH_OURS_")

    unset: bool = setting(True, deprecated_names=_renamed("UNSET"))
    canonical: bool = setting(True, deprecated_names=_renamed("CANONICAL"))
    deprecated: bool = setting(True, deprecated_names=_renamed("DEPRECATED"))
    overridden: bool = setting(True, deprecated_names=_renamed("OVERRIDDEN"))
    sealed_one: bool = setting(True, deprecated_names=_renamed("SEALED_ONE"))


ours = live(Ours)


def names_of(field: str) -> tuple[str, str]:
    """The canonical and the deprecated name of one of them."""
    return f"BENCH_OURS_{field.upper()}", f"BENCH_OLD_{field.upper()}"


def _read(field: str, given_as: str | None = None) -> Subject:
    """A read of a setting that has never been overridden."""
    if given_as is not None:
        os.environ[given_as] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one is given under its deprecated name on purpose
        getattr(ours, field)
    return Subject(f"ours.{field}", {"ours": ours}, names_of(field))


def _overridden_before() -> Subject:
    """A setting that has been overridden, so that every read asks for scopes."""
    with ours.override(overridden=False):
        return Subject("ours.overridden", {"ours": ours}, names_of("overridden"))


def _overridden_here() -> Subject:
    return Subject("ours.overridden", {"ours": ours}, around=lambda: ours.override(overridden=False))


def _overridden_elsewhere() -> Subject:
    return Subject("ours.overridden", {"ours": ours}, names_of("overridden"), _overridden_by_a_thread)


@contextmanager
def _overridden_by_a_thread() -> Iterator[None]:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with ours.override(overridden=False):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    try:
        yield
    finally:
        leave.set()
        thread.join()


CONTENDERS = (
    Contender(PULL, lambda: _read("unset")),
    Contender(PULL_CANONICAL, lambda: _read("canonical", names_of("canonical")[0])),
    Contender(PULL_DEPRECATED, lambda: _read("deprecated", names_of("deprecated")[1])),
    Contender("ours: overridden before", _overridden_before),
    Contender("ours: overridden here", _overridden_here),
    Contender(PULL_ELSEWHERE, _overridden_elsewhere),
)
