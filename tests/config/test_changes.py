"""History, listeners, moments that have passed, recordings, fingerprints and guards."""

from __future__ import annotations

import subprocess
import sys
import threading
from enum import Enum
from typing import Any

import pytest
from own_settings import own as own_live
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from dsa_config import LiveSettings, TooLate, UnknownSetting, setting
from dsa_config.changes import MOST_KEPT
from dsa_config.moments import LEAST_KEPT
from dsa_config.origins import caller_site
from dsa_config.tracking import Stale


class Colour(Enum):
    red = "red"
    blue = "blue"


class Tracked(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="TRACKED_")

    a: int = setting(0)
    b: bool = setting(False, effect="allocate")
    c: str = setting("c", effect="capture")
    d: float = setting(0.5, effect="process")
    e: int = setting(0, effect="call and allocate")
    names: frozenset[str] = setting(frozenset())
    colour: Colour = setting(Colour.red)
    key: SecretStr = setting(SecretStr(""))


def _fresh() -> Any:
    return own_live(Tracked)


def test_listeners_hear_of_every_change_for_the_process(monkeypatch, tmp_path):
    """set, reset, load, and the environment at the next read; with the old and the new value and the origin."""
    own, heard = _fresh(), []
    stop = own.on_change(lambda name, old, new, origin: heard.append((name, old, new, str(origin).split(" at ")[0])))
    own.set(a=1)
    own.set(a=1)
    own.reset("a")
    monkeypatch.setenv("TRACKED_A", "5")
    assert heard == [("a", 0, 1, "settings.set"), ("a", 1, 0, "the declaration")]
    assert own.a == 5
    (tmp_path / "x.toml").write_text("a = 6\nc = 'file'")
    own.load(file=tmp_path / "x.toml")
    stop()
    stop()
    own.set(a=9)
    assert heard[2:] == [("a", 0, 5, "environment variable TRACKED_A"), ("c", "c", "file", "config file")]
    assert [(it.name, it.new) for it in own.history()] == [("a", 1), ("a", 0), ("a", 5), ("c", "file"), ("a", 9)]
    assert [it.new for it in own.history("TRACKED_C")] == ["file"]
    assert str(own.history("c")[0]).startswith("c: 'c' -> 'file', from config file at ")
    with pytest.raises(UnknownSetting):
        own.history("nonsense")


def test_overrides_are_no_changes():
    """They are seen by one context, and nothing changes for the process."""
    own = _fresh()
    with own.override(a=3):
        assert own.a == 3
    assert own.history() == []


def test_a_listener_that_fails_is_reported_and_stops_nobody():
    """The other listeners are told, and the value is set."""
    own, heard = _fresh(), []

    def broken(*_):
        raise KeyError("oops")

    own.on_change(broken)
    own.on_change(lambda *it: heard.append(it[0]))
    with pytest.warns(RuntimeWarning, match="broken.* failed when it was told of a: KeyError: 'oops'"):
        own.set(a=1)
    assert (heard, own.a) == (["a"], 1)
    with pytest.raises(TypeError, match=r"on_change\(3\): wanted a function"):
        own.on_change(3)


def test_a_listener_may_read_and_set():
    """Nothing is locked while it is told."""
    own = _fresh()
    stop = own.on_change(lambda name, _old, new, _origin: own.set(c=str(new)) if name == "a" else None)
    own.set(a=4)
    stop()
    assert own.c == "4"


def test_the_history_is_a_ring():
    """It does not grow without bound."""
    own = _fresh()
    for number in range(MOST_KEPT + 10):
        own.set(a=number + 1)
    assert len(own.history()) == MOST_KEPT
    assert own.history()[-1].new == MOST_KEPT + 10


def test_a_value_that_cannot_be_read_is_no_change(monkeypatch):
    """The read raises; the history has only values."""
    own = _fresh()
    assert own.a == 0
    monkeypatch.setenv("TRACKED_A", "many")
    own.set(b=True)
    own.set(a=3)
    own.reset()
    monkeypatch.setenv("TRACKED_A", "4")
    assert own.a == 4
    assert [it.new for it in own.history("a")] == [3, 4]


def test_a_change_after_its_moment_is_reported():
    """With the line at which the moment passed, at the line of the change, and by explain; until the next moment."""
    own = _fresh()
    assert own.b is False
    own.passed("allocate", "the KV cache was allocated")
    with pytest.warns(TooLate) as caught:
        own.set(b=True)
    told = str(caught[0].message)
    assert told.startswith("b changed from False to True (from settings.set at ")
    assert f"too late: the KV cache was allocated at {__file__}:" in told
    assert told.endswith("it takes effect at the next allocation of a cache")
    assert caught[0].filename == __file__
    assert own.explain("b").warnings == (told,)
    own.passed("allocate", "another cache was allocated")
    assert own.explain("b").warnings == ()
    own.set(a=1, c="now")
    with pytest.raises(ValueError, match=r"passed\('call'\): wanted capture or allocate"):
        own.passed("call", "nothing")


def test_a_setting_that_matters_at_calls_and_at_allocation():
    """It is too late for the caches that are there, and takes effect at the next call all the same."""
    own = _fresh()
    own.set(e=1)
    own.passed("allocate", "the KV cache was allocated")
    with pytest.warns(
        TooLate, match="too late: the KV cache was allocated at .*; it takes effect at the next call, and"
    ):
        own.set(e=2)
    (told,) = own.explain("e").warnings
    assert told.endswith("for how a cache is laid out at its next allocation")
    own.passed("allocate", "another cache was allocated")
    assert own.explain("e").warnings == ()


def test_a_moment_is_told_at_the_line_that_called_the_package_that_reads(monkeypatch):
    """A package that reads the settings allocates for its caller; a whole program of it is its own caller."""

    class Read(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="READ_HERE_")
        read_by = (__name__.partition(".")[0],)
        a: int = setting(0, effect="allocate")

    package = own_live(Read)
    calls = {"__name__": "elsewhere", "allocate": lambda: package.passed("allocate", "a cache was allocated")}
    exec(compile("allocate()", "caller.py", "exec"), calls)
    with pytest.warns(TooLate, match=r"a cache was allocated at caller\.py:1;"):
        package.set(a=1)


def test_a_moment_is_told_beyond_packages_that_call_for_their_users(monkeypatch):
    """A framework runs the package for a user, whose line it is."""

    class Called(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="CALLED_HERE_")
        read_by = (__name__.partition(".")[0],)
        called_by = ("framework",)
        a: int = setting(0, effect="allocate")

    package = own_live(Called)
    framework = {"__name__": "framework.modules", "allocate": lambda: package.passed("allocate", "a cache was made")}
    exec(compile("def forward():\n    allocate()", "modules.py", "exec"), framework)
    exec(compile("\n\nforward()", "user.py", "exec"), {"__name__": "__main__", "forward": framework["forward"]})
    with pytest.warns(TooLate, match=r"a cache was made at user\.py:3;"):
        package.set(a=1)


class Made:
    """A cache, or a graph."""


def test_a_moment_is_over_with_the_last_that_was_made_in_it():
    """Then no change is too late for it, and an earlier one no longer is; also where it was left in a cycle."""
    own, first, second = _fresh(), Made(), Made()
    own.passed("allocate", "two caches were allocated", made=[first, second])
    second.itself = second
    del first
    with pytest.warns(TooLate, match="two caches were allocated"):
        own.set(b=True)
    assert len(own.explain("b").warnings) == 1
    del second
    own.set(b=False)
    assert own.explain("b").warnings == ()
    assert own.history("b")[-1].new is False


def test_of_moments_that_are_not_over_the_last_is_told():
    """Also by explain, later on: not one that is over meanwhile, and none that passed after the change."""
    own, old, new, later = _fresh(), Made(), Made(), Made()
    own.passed("allocate", "the old cache was allocated", made=[old])
    own.passed("allocate", "the new cache was allocated", made=[new])
    with pytest.warns(TooLate, match="the new cache was allocated"):
        own.set(b=True)
    del new
    (told,) = own.explain("b").warnings
    assert "too late: the old cache was allocated at" in told
    own.passed("allocate", "a later cache was allocated", made=[later])
    assert own.explain("b").warnings == ()


def test_a_moment_concerns_the_settings_that_decided_about_it():
    """By any of their names; a change of another is not too late, and one that was too late stays so."""
    own = _fresh()
    own.passed("allocate", "the first cache was allocated", decided_by=["TRACKED_B"])
    own.set(e=1)
    with pytest.warns(TooLate, match="the first cache"):
        own.set(b=True)
    own.passed("allocate", "the second cache was allocated", decided_by=["e"])
    assert len(own.explain("b").warnings) == 1
    with pytest.warns(TooLate, match="the second cache"):
        own.set(e=2)
    with pytest.warns(TooLate, match="the first cache"):
        own.set(b=False)
    with pytest.raises(UnknownSetting):
        own.passed("allocate", "a cache was allocated", decided_by=["nonsense"])
    with pytest.raises(TypeError, match="weak reference to 'int'"):
        own.passed("allocate", "a cache was allocated", made=[1])


def test_moments_do_not_pile_up():
    """Neither those that are over, nor those at which nothing was named; those that are not over all count."""
    own, living = _fresh(), [Made() for _ in range(3 * LEAST_KEPT)]
    for it in living:
        own.passed("allocate", "a cache was allocated", made=[it])
    for _ in range(20 * LEAST_KEPT):
        own.passed("allocate", "a cache for a moment was allocated", made=[Made()])
        own.passed("allocate", "something was allocated")
    assert len(own._state.moments._passed) <= 6 * LEAST_KEPT + 1
    own._state.moments.passed("capture", "a graph was captured", caller_site())
    with pytest.warns(TooLate, match="something was allocated"):
        own.set(b=True)
    own._state.moments._passed.pop(("allocate", None))
    with pytest.warns(TooLate, match="too late: a cache was allocated"):
        own.set(b=False)


def test_moments_can_be_forgotten_and_put_back():
    """What a copy keeps is not what is forgotten."""
    own = _fresh()
    own.passed("allocate", "a cache was allocated")
    with pytest.warns(TooLate):
        own.set(b=True)
    kept = own._state.moments.copy()
    own._state.moments.forget()
    own.set(b=False)
    assert own.explain("b").warnings == ()
    own._state.moments = kept
    assert len(own.explain("b").warnings) == 1
    with pytest.warns(TooLate):
        own.set(b=True)


def test_a_process_setting_is_fixed_by_its_first_read(monkeypatch):
    """A change in the environment is noticed at the next read."""
    own = _fresh()
    assert own.d == 0.5
    monkeypatch.setenv("TRACKED_D", "0.75")
    with pytest.warns(TooLate, match="too late: the process started; it takes effect at the next start of the proc"):
        assert own.d == 0.75


def test_record_reads_collects_what_was_read():
    """Exactly the settings that were read between two points in this context, with their values."""
    own = _fresh()
    own.a  # noqa: B018
    with own.record_reads() as recorded:
        assert (own.b, own.c) == (False, "c")
        with own.override(a=7):
            assert own.a == 7
        other = threading.Thread(target=lambda: own.colour)
        other.start()
        other.join()
    own.names  # noqa: B018
    assert dict(recorded.reads) == {"b": False, "c": "c", "a": 7}
    assert recorded.unstable == ()
    assert recorded.fingerprint() != _fingerprint_of(own, "b", "c", "a")
    with own.override(a=7):
        assert recorded.fingerprint() == own.fingerprint("a", "b", "c")


def _fingerprint_of(own, *names):
    return own.fingerprint(*names)


def test_a_recording_tells_of_settings_that_changed_meanwhile():
    """What was built then is of no one configuration."""
    own = _fresh()
    with own.record_reads() as recorded:
        own.a  # noqa: B018
        own.set(a=1)
        own.a  # noqa: B018
        own.a  # noqa: B018
    assert recorded.unstable == ("a",)


def test_recordings_nest_and_cross_threads_where_they_are_carried():
    """The inner one has its part, the outer one all."""
    own = _fresh()
    with own.record_reads() as outer:
        own.a  # noqa: B018
        with own.record_reads() as inner:
            thread = threading.Thread(target=own.carry(lambda: own.b))
            thread.start()
            thread.join()
    assert (set(outer.reads), set(inner.reads)) == ({"a", "b"}, {"b"})


def test_reads_cost_nothing_more_after_a_recording():
    """The look for scopes is switched off again."""
    own = _fresh()
    with own.record_reads():
        assert all(reader.scoped for reader in own._readers.values())
    assert not any(reader.scoped for reader in own._readers.values())
    with own.override(a=1):
        pass
    with own.record_reads():
        pass
    assert [name for name, reader in own._readers.items() if reader.scoped] == ["a"]


def test_a_guard_tells_what_has_changed(monkeypatch):
    """Before a captured graph is replayed: does everything that it read still hold?"""
    own = _fresh()
    with own.record_reads() as recorded:
        own.b, own.a, own.key  # noqa: B018
    guard = recorded.guard("the decode graph")
    assert guard.holds
    assert guard.changes() == []
    guard.check()
    own.set(c="not read")
    guard.check()
    monkeypatch.setenv("TRACKED_A", "3")
    monkeypatch.setenv("TRACKED_KEY", "hush")
    assert not guard.holds
    with pytest.raises(Stale) as caught:
        guard.check()
    assert [it.name for it in caught.value.changes] == ["a", "key"]
    assert "the decode graph is out of date: a was 0 and is 3 (from environment variable TRACKED_A)" in str(
        caught.value
    )
    assert "hush" not in str(caught.value)
    everything = own.guard()
    with own.override(colour="blue"):
        assert str(everything.changes()[0]).startswith("colour was <Colour.red: 'red'> and is <Colour.b")
    own.guard("a", what="a kernel").check()


def test_fingerprints_are_the_same_in_every_process(monkeypatch):
    """Also of sets, whose order differs from process to process; secrets are left out."""
    own = _fresh()
    own.set(names={"x", "y", "z"}, colour="blue")
    program = (
        "from tests.config.test_changes import _fresh; own = _fresh(); own.set(names={'z', 'y', 'x'}, colour='blue');"
        "own.set(key='other'); print(own.fingerprint())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True, capture_output=True, text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert printed == {own.fingerprint()}
    assert own.fingerprint("a") != own.fingerprint("a", "b")
    before = own.fingerprint()
    own.set(a=1)
    assert own.fingerprint() != before


def test_a_value_without_a_form_outside_the_process_has_no_fingerprint():
    """It is named."""

    class Odd(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="ODD_", arbitrary_types_allowed=True)

        thing: object = setting(None)

    odd = own_live(Odd)
    odd.set(thing=object())
    with pytest.raises(TypeError, match="thing=<object object at .* cannot be part of a fingerprint"):
        odd.fingerprint()
