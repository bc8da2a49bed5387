"""A read returns the value as of now."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
from pydantic import field_validator
from pydantic_settings import SettingsConfigDict

from dsa_config import BadValue, DSASettings, LiveSettings, Renamed, live, setting, settings


class ManyNames(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="READING_")

    plain: int = setting(1)
    thrice: int = setting(
        1,
        deprecated_names=[
            Renamed("READING_OLD", since="1", remove_in="9"),
            Renamed("READING_OLDER", since="1", remove_in="9"),
        ],
    )
    doubled: int = setting(1)

    @field_validator("doubled")
    @classmethod
    def _double(cls, value: int) -> int:
        return value * 2


@pytest.mark.parametrize(
    ("field", "variable"),
    [("use_aiter", "SGLANG_USE_AITER"), ("fuse_topk", "SGLANG_DSA_FUSE_TOPK")],
    ids=["one name", "two names"],
)
def test_every_kind_of_environment_change_is_seen(field, variable):
    """Set, changed, deleted, updated, restored: the very next read knows."""
    default = getattr(settings, field)
    seen = []
    os.environ[variable] = "1"
    seen.append(getattr(settings, field))
    os.environ.update({variable: "0"})
    seen.append(getattr(settings, field))
    os.environb[variable.encode()] = b"yes"
    seen.append(getattr(settings, field))
    with mock.patch.dict(os.environ, {variable: "off"}):
        seen.append(getattr(settings, field))
    seen.append(getattr(settings, field))
    del os.environ[variable]
    seen.append(getattr(settings, field))
    assert seen == [True, False, True, False, True, default]


def test_three_names_are_read_in_order(monkeypatch):
    """Any number of deprecated names works, the first declared wins."""
    names = live(ManyNames)
    assert names.thrice == 1
    monkeypatch.setenv("READING_OLDER", "2")
    with pytest.warns(FutureWarning, match="READING_OLDER"):
        assert names.thrice == 2
    monkeypatch.setenv("READING_OLD", "3")
    with pytest.warns(FutureWarning, match="READING_OLD "):
        assert names.thrice == 3
    monkeypatch.setenv("READING_THRICE", "4")
    with pytest.warns(FutureWarning, match="READING_THRICE wins"):
        assert names.thrice == 4
    with names.override(thrice=5):
        assert (names.thrice, names.plain) == (5, 1)
    assert names.thrice == 4


def test_a_replaced_environ_object_is_noticed(monkeypatch):
    """Code under test may put another mapping in the place of os.environ."""
    monkeypatch.setenv("SGLANG_USE_AITER", "0")
    assert settings.use_aiter is False
    with mock.patch.object(os, "environ", {"SGLANG_USE_AITER": "1"}):
        assert [settings.use_aiter, settings.use_aiter] == [True, True]
        os.environ["SGLANG_USE_AITER"] = "0"
        assert settings.use_aiter is False
        os.environ.clear()
        assert settings.use_aiter is False
        with settings.override(use_aiter=True):
            assert settings.use_aiter is True
    assert settings.use_aiter is False


def test_a_bad_value_is_an_error_until_it_is_mended(monkeypatch):
    """A bad text never becomes the default, and the error goes away with it."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    for _ in range(2):
        with pytest.raises(BadValue, match="^SGLANG_DSA_FUSE_TOPK='maybe'"):
            settings.fuse_topk  # noqa: B018
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "no")
    assert settings.fuse_topk is False


def test_variable_names_are_case_sensitive(monkeypatch):
    """A name in other capitals is another variable."""
    monkeypatch.setenv("sglang_dsa_fuse_topk", "0")
    assert settings.fuse_topk is True
    assert DSASettings().fuse_topk is True


def test_reads_leave_the_environment_alone(monkeypatch):
    """No read writes os.environ, whichever name is set."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    before = dict(os.environ)
    with pytest.warns(FutureWarning):
        assert settings.fuse_topk is False
    settings.explain("fuse_topk")
    settings.snapshot()
    DSASettings()
    assert dict(os.environ) == before


def test_the_fields_own_validators_run_once_a_value(monkeypatch):
    """A validator that changes the value is applied once, in live reads, snapshots and construction alike."""
    names = live(ManyNames)
    monkeypatch.setenv("READING_DOUBLED", "5")
    assert (names.doubled, names.snapshot().doubled, ManyNames().doubled) == (10, 10, 10)
    with names.override(doubled=7):
        assert (names.doubled, names.snapshot().doubled) == (14, 14)


def test_an_unknown_name_is_an_attribute_error_with_a_hint():
    """hasattr works, and a slip of the pen is told what it might have meant."""
    assert not hasattr(settings, "nonsense")
    program = "from dsa_config import settings; settings.fuse_topK"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stderr.rstrip().endswith("Did you mean: 'fuse_topk'?")


def test_an_attribute_error_underneath_is_not_taken_for_an_unknown_name():
    """What a validator or a broken os.environ raises is told as what it is."""

    class Broken(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="BROKEN_")

        x: str = setting("")

        @field_validator("x")
        @classmethod
        def _fail(cls, value: str) -> str:
            return value.nonsense() if value else value

    broken = live(Broken)
    with mock.patch.dict(os.environ, {"BROKEN_X": "1"}), pytest.raises(RuntimeError, match="x cannot be read: 'str'"):
        broken.x  # noqa: B018
    with mock.patch.object(os, "environ", None), pytest.raises(RuntimeError, match="cannot be read: 'NoneType'"):
        broken.x  # noqa: B018


def test_mutable_values_are_not_shared():
    """Every reader gets its own list; what is done to it, or to the list that was given, changes nothing."""

    class Listed(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="LISTED_")

        names: list[str] = setting(["default"])
        pair: tuple[int, int] = setting((1, 2))

    listed = live(Listed)
    listed.names.append("x")
    given = ["a"]
    with listed.override(names=given):
        given.append("b")
        listed.names.append("c")
        assert listed.names == listed.snapshot().names == ["a"]
    assert listed.names == listed.snapshot().names == ["default"]
    assert listed.pair is listed.pair
    with pytest.raises(BadValue, match="cannot be copied"):
        listed.override(names=(name for name in "ab"))


def test_racing_threads_get_one_live_object():
    """However many threads ask first, there is one object."""

    class Asked(LiveSettings):
        a: int = setting(1)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: live(Asked), range(64)))
    finally:
        sys.setswitchinterval(interval)
    assert len(set(map(id, made))) == 1


def test_there_is_one_live_object_a_class():
    """live() twice, a copy, a deep copy and a pickle are all the same object."""
    assert live(DSASettings) is settings
    assert copy.copy(settings) is settings
    assert copy.deepcopy({"settings": settings})["settings"] is settings
    assert pickle.loads(pickle.dumps(settings)) is settings


def test_dir_and_repr_help_at_the_prompt():
    """Completion lists the settings and what can be done with them."""
    assert {"fuse_topk", "override", "set", "reset", "explain", "snapshot"} <= set(dir(settings))
    assert repr(settings).startswith("<live DSASettings")


def test_no_setting_has_a_key_in_the_module_dictionary():
    """torch.compile would read the dictionary instead of the property, and never again."""
    assert not set(DSASettings.model_fields) & set(vars(settings))


def test_threads_that_write_and_read_never_see_a_wrong_value():
    """Values written whole are read whole: no thread sees another variable's or an outdated value for good."""
    stop = threading.Event()
    wrong: list[object] = []

    def write() -> None:
        while not stop.is_set():
            for text in ("0", "1", "no", "yes"):
                os.environ["SGLANG_USE_AITER"] = text
            del os.environ["SGLANG_USE_AITER"]

    def read() -> None:
        while not stop.is_set():
            if settings.use_aiter not in (True, False):
                wrong.append(settings.use_aiter)

    def override() -> None:
        while not stop.is_set():
            with settings.override(use_aiter=True):
                if settings.use_aiter is not True:
                    wrong.append("override")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work) for work in (write, read, read, override)]
    try:
        for thread in threads:
            thread.start()
        stop.wait(1.0)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not wrong
    os.environ["SGLANG_USE_AITER"] = "1"
    assert settings.use_aiter is True
    del os.environ["SGLANG_USE_AITER"]
    assert settings.use_aiter is False


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which this platform lacks")
def test_a_forked_child_can_read_and_set():
    """A lock held by another thread at the moment of the fork does not hang the child."""
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            settings.set(use_aiter=True)
            settings.reset("use_aiter")

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                settings.set(use_aiter=True)
                os._exit(0 if settings.use_aiter else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()
