"""Sealed reads: a plain object that the writers keep current."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from own_settings import own as own_live
from pydantic_settings import SettingsConfigDict

from dsa_config import AssignmentRefused, BadValue, LiveSettings, setting


class Sealable(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="SEALABLE_")

    a: int = setting(0, ge=0)
    b: bool = setting(False)
    many: list[int] = setting([])


def _fresh() -> Any:
    return own_live(Sealable)


def test_every_write_through_the_environment_is_seen(monkeypatch):
    """Assignment, deletion, update, pop, setdefault, the bytes view and monkeypatch, from any thread."""
    own = _fresh()
    hot = own.sealed()
    assert hot is own.sealed()
    seen = [hot.a]
    os.environ["SEALABLE_A"] = "1"
    seen.append(hot.a)
    os.environ.update(SEALABLE_A="2")
    seen.append(hot.a)
    os.environ.pop("SEALABLE_A")
    seen.append(hot.a)
    os.environ.setdefault("SEALABLE_A", "3")
    seen.append(hot.a)
    del os.environ["SEALABLE_A"]
    seen.append(hot.a)
    os.environb[b"SEALABLE_A"] = b"4"
    seen.append(hot.a)
    monkeypatch.setenv("SEALABLE_A", "5")
    seen.append(hot.a)
    thread = threading.Thread(target=os.environ.__setitem__, args=("SEALABLE_A", "6"))
    thread.start()
    thread.join()
    seen.append(hot.a)
    assert seen == [0, 1, 2, 0, 3, 0, 4, 5, 6]
    monkeypatch.undo()
    os.environ.pop("SEALABLE_A", None)
    assert hot.a == 0


def test_set_reset_and_load_are_seen(tmp_path):
    """The program's own writers."""
    own = _fresh()
    hot = own.sealed()
    own.set(a=5, b=True)
    assert (hot.a, hot.b) == (5, True)
    own.reset()
    assert (hot.a, hot.b) == (0, False)
    (tmp_path / "a.json").write_text('{"a": 7}')
    own.load(file=tmp_path / "a.json")
    assert hot.a == 7


def test_the_attributes_are_plain():
    """No property stands in the way of a setting that no scope has touched."""
    own = _fresh()
    hot = own.sealed()
    assert not isinstance(type(hot).__dict__["a"], property)
    with own.override(a=1):
        pass
    assert isinstance(type(hot).__dict__["a"], property)
    assert not isinstance(type(hot).__dict__["b"], property)


def test_overrides_and_recordings_are_right():
    """A setting with scopes is read live."""
    own = _fresh()
    hot = own.sealed()
    with own.override(a=9):
        assert hot.a == 9
        thread_saw = []
        thread = threading.Thread(target=lambda: thread_saw.append(hot.a))
        thread.start()
        thread.join()
        assert thread_saw == [0]
    assert hot.a == 0
    with own.record_reads() as recorded:
        assert hot.b is False
    assert dict(recorded.reads) == {"b": False}
    assert not isinstance(type(hot).__dict__["b"], property), "plain again after the recording"


def test_a_bad_value_is_an_error_of_the_read(monkeypatch):
    """And the next good value is plain again."""
    own = _fresh()
    hot = own.sealed()
    monkeypatch.setenv("SEALABLE_A", "-1")
    with pytest.raises(BadValue, match="SEALABLE_A='-1'"):
        hot.a  # noqa: B018
    monkeypatch.setenv("SEALABLE_A", "1")
    assert hot.a == 1
    assert not isinstance(type(hot).__dict__["a"], property)


def test_a_mutable_value_is_a_copy():
    """As with the live object."""
    own = _fresh()
    hot = own.sealed()
    own.set(many=[1])
    hot.many.append(2)
    assert hot.many == [1]


def test_it_cannot_be_written():
    """Whoever wants to change something uses the live object."""
    hot = _fresh().sealed()
    with pytest.raises(AssignmentRefused, match=r"settings.set\(a=\.\.\.\)"):
        hot.a = 1
    with pytest.raises(AssignmentRefused):
        del hot.a
    with pytest.raises(AttributeError):
        hot.nonsense  # noqa: B018


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_a_forked_child_keeps_it_current():
    """Its lock is new, and its environment its own."""
    own = _fresh()
    hot = own.sealed()
    pid = os.fork()
    if pid == 0:
        os.environ["SEALABLE_A"] = "3"
        os._exit(0 if hot.a == 3 and own.a == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert hot.a == 0
