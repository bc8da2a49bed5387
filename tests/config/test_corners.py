"""Moments that are rare and must be right: a fork, a replaced environment, a parser that writes, a store that reads."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from typing import Any

import pytest
from own_settings import own
from pydantic import field_validator
from pydantic_settings import EnvSettingsSource, SettingsConfigDict

from dsa_config import LiveSettings, Renamed, getters, lifecycle, setting, settings
from dsa_config import record as record_module
from dsa_config import sealed as sealed_module
from dsa_config import state as state_module
from dsa_config.declared import settings_of
from dsa_config.loading import Sources
from dsa_config.overrides import entered
from dsa_config.read import Reader
from dsa_config.sources import env
from dsa_config.sources.construct import EnvironmentSource


class Cornered(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="CORNERED_")

    a: int = setting(0)
    b: int = setting(0)
    c: int = setting(0, deprecated_names=[Renamed("CORNERED_OLD_C", since="9998", remove_in="9999")])


def test_what_a_child_process_renews(monkeypatch):
    """A lock that a thread of the parent holds is replaced in the child; what is read there is right."""
    it = own(Cornered)
    hot = it.sealed()
    reader = it._readers["a"]
    locks = [reader.lock, it._state.lock, it._state.sealed._lock, lifecycle._said_lock]
    holder = threading.Thread(target=lambda: [lock.acquire() for lock in locks])
    holder.start()
    holder.join()
    for renew in (
        record_module._start_anew,
        state_module._renew_locks,
        sealed_module._renew_locks,
        lifecycle._renew_lock,
    ):
        renew()
    monkeypatch.setenv("CORNERED_A", "3")
    it.set(b=4)
    assert (it.a, it.b, hot.a, hot.b) == (3, 4, 3, 4)


def test_another_python_reads_the_environment_by_its_mapping(monkeypatch):
    """Where there is no dictionary behind os.environ, the mapping itself is asked."""
    monkeypatch.setattr(os, "environ", {"CORNERED_A": "5"})
    spec = importlib.util.find_spec(env.__name__)
    assert spec is not None
    assert spec.loader is not None
    elsewhere = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elsewhere)
    assert elsewhere.text_of(elsewhere.probe(elsewhere.key_of("CORNERED_A"))) == "5"
    assert elsewhere.probe("CORNERED_B") is None


def test_a_replaced_environment_is_seen_in_a_flag_context(monkeypatch):
    """Also by the reads that keep the layers above a flag."""
    it = own(Cornered)
    it.load(flags=Always())
    with it.flag_context(layer=1):
        assert it.a == 7
        monkeypatch.setattr(os, "environ", {"CORNERED_A": "5"})
        assert (it.a, it.a) == (5, 5)
        monkeypatch.undo()
        assert it.a == 7


class Always:
    """A source of flags that says 7 in every context, and cannot tell when it will say something else."""

    names = ("a",)
    timed = ("a",)

    def evaluate(self, name: str, context: object) -> Any:
        return lifecycle_value(name)


def lifecycle_value(name: str) -> Any:
    from dsa_config.flags.rules import Flagged

    return Flagged(7, 7, "seven", "STATIC", f"flag {name}")


def test_explain_in_an_override_has_the_context_around_it():
    """The innermost scope that has one."""
    it = own(Cornered)
    it.load(flags=Always())
    with it.flag_context(layer=1), it.override(b=2):
        assert it.explain("a").source == "flag"
        assert it.a == 7


def test_a_value_that_changes_while_it_is_read_is_not_kept():
    """A parser that writes: what it read is given once, and the next read sees what it wrote."""

    class Writing(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="WRITING_")

        a: int = setting(0)

        @field_validator("a")
        @classmethod
        def _write(cls, value: int) -> int:
            if value == 1 and not written:
                written.append(value)
                it.set(a=2)
            return value

    written: list[int] = []
    it = own(Writing)
    os.environ["WRITING_A"] = "1"
    try:
        assert (it.a, it.a) == (1, 2)
    finally:
        del os.environ["WRITING_A"]


def test_a_store_may_read_settings_while_it_is_loaded():
    """It sees what was there before, and nobody waits for himself."""
    seen = []

    class Reading(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="READING_")

        a: int = setting(0)

    class Store(EnvSettingsSource):
        def _load_env_vars(self):
            seen.append(it.a)
            return {"READING_A": "4"}

    it = own(Reading)
    it.load(cloud=[Store])
    it.reload()
    assert (seen, it.a) == ([0, 4], 4)


def test_a_decorated_function_may_return_any_context_manager():
    """Only one that is made of a generator would run outside the scope."""
    lock = threading.Lock()

    @settings.override(fuse_topk=False)
    def a_lock():
        return contextlib.nullcontext(lock)

    with a_lock() as got:
        assert got is lock
        assert settings.fuse_topk is True


def test_a_generator_that_empties_its_context_harms_nobody():
    """Whatever a body does to the scopes, the consumer's are as they were."""

    @settings.override(fuse_topk=False)
    def body():
        entered.set(())
        yield settings.fuse_topk

    assert list(body()) == [True]
    assert settings.fuse_topk is True


def test_the_constructors_source_gives_single_fields(monkeypatch):
    """What pydantic-settings asks of a source."""
    source = EnvironmentSource(Cornered)
    field = Cornered.model_fields["a"]
    assert source.get_field_value(field, "a") == (None, "a", False)
    monkeypatch.setenv("CORNERED_A", "3")
    assert source.get_field_value(field, "a") == ("3", "a", False)


def test_sources_say_what_is_left_to_variables():
    """In their repr."""
    assert "profile=BY_VARIABLE" in repr(Sources(file="x"))


def test_an_alias_of_a_type_has_its_grammar():
    """As `type Size = int` makes it, or typing_extensions before Python 3.12."""
    from typing_extensions import TypeAliasType

    Size = TypeAliasType("Size", int)

    class Aliased(LiveSettings):
        size: Size = setting(1)  # type: ignore[valid-type]

    assert settings_of(Aliased)["size"].allowed == "an integer in decimal digits"


@pytest.mark.parametrize("fed", [True, False])
def test_a_read_is_right_however_often_its_environment_changes(monkeypatch, fed):
    """The getter that is fast for the present state is put in place, until that has been done too often.

    Both kinds of getter are right on every Python; each is the faster one on some.
    """
    monkeypatch.setattr(getters, "FED", fed)
    it = own(Cornered)
    for number in range(100):
        monkeypatch.setenv("CORNERED_A", str(number))
        assert (it.a, it.a) == (number, number)
        monkeypatch.setenv("CORNERED_A", str(number + 1))
        assert (it.a, it.a) == (number + 1, number + 1)
        monkeypatch.delenv("CORNERED_A")
        assert (it.a, it.a) == (0, 0)
    it.set(a=5)
    assert it.a == 5
    with it.override(a=6):
        assert it.a == 6


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
@pytest.mark.parametrize("fed", [True, False])
def test_the_value_of_a_name_that_is_gone_is_not_returned(monkeypatch, fed):
    """Once no more getters are put in place, the last one is for another state than what was read last.

    It is for the deprecated name alone; both names are read; then the canonical one goes, and the old one counts.
    """
    monkeypatch.setattr(getters, "FED", fed)
    it = own(Cornered)
    for number in range(100):
        monkeypatch.setenv("CORNERED_C", str(number))
        assert it.c == number
        monkeypatch.delenv("CORNERED_C")
        monkeypatch.setenv("CORNERED_OLD_C", str(-number))
        assert it.c == -number
        monkeypatch.setenv("CORNERED_C", "1000")
        assert it.c == 1000
        monkeypatch.delenv("CORNERED_C")
        assert it.c == -number
        monkeypatch.delenv("CORNERED_OLD_C")
        assert it.c == 0


def test_a_snapshot_does_not_go_over_the_environment(monkeypatch):
    """Where a variable may be taken away by another thread between its name and its value."""
    monkeypatch.setenv("CORNERED_A", "7")
    it = own(Cornered)
    with it.override(b=8):
        monkeypatch.setattr(type(os.environ), "__iter__", lambda _: iter(["GONE_MEANWHILE"]))
        assert (it.snapshot().a, it.snapshot().b) == (7, 8)


def test_a_setting_that_is_read_in_scopes_alone_is_read_fast(monkeypatch):
    """From the first override on the getter looks at the scope, also if no plain read has come before."""
    it = own(Cornered)
    with it.override(a=6):
        monkeypatch.setattr(Reader, "read", lambda _: pytest.fail("looked up in full"))
        monkeypatch.setattr(Reader, "read_in", lambda *_: pytest.fail("looked for in all scopes"))
        assert it.a == 6


def test_the_environment_may_change_while_its_keys_are_looked_at(monkeypatch):
    """Then the key is as good as the one that is held."""

    class Changing:
        def __iter__(self):
            raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(env, "HELD", Changing())
    assert env.held_key(b"CORNERED_A") == b"CORNERED_A"
