"""SGLang's `envs` in our hands: the same calls, without the defects of the original."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import field_validator
from pydantic_settings import SettingsConfigDict

from dsa_config import (
    BadValue,
    DeprecatedName,
    DSASettings,
    LiveSettings,
    SettingError,
    UnknownSetting,
    live,
    setting,
    settings,
)
from dsa_config.compat.sglang import Envs, envs
from dsa_config.declared import settings_of

NAMES = [variable for it in settings_of(DSASettings).values() for variable in it.variables]


@pytest.fixture(autouse=True)
def _environment_as_before(monkeypatch):
    """`set` writes variables on purpose."""
    for name in NAMES:
        monkeypatch.setenv(name, "noted")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_declared_name_is_an_attribute(name):
    """Canonical, deprecated and prefix-less names read the setting that they name."""
    field = getattr(envs, name)
    assert field.get() == field.default
    assert name in dir(envs)
    assert name in settings_of(DSASettings)[settings.explain(name).name].variables
    assert repr(field) == f"<envs.{field.name}, settings.{settings.explain(name).name}>"


def test_code_for_the_original_runs():
    """get, set, clear, is_set and override as SGLang's callers use them."""
    assert envs.SGLANG_DSA_FUSE_TOPK.get() is True
    assert not envs.SGLANG_DSA_FUSE_TOPK.is_set()
    envs.SGLANG_DSA_FUSE_TOPK.set(False)
    assert os.environ["SGLANG_DSA_FUSE_TOPK"] == "0"
    assert envs.SGLANG_DSA_FUSE_TOPK.is_set()
    with envs.SGLANG_DSA_FUSE_TOPK.override(True):
        assert envs.SGLANG_DSA_FUSE_TOPK.get() is True
        assert settings.fuse_topk is True
    assert envs.SGLANG_DSA_FUSE_TOPK.get() is settings.fuse_topk is False
    envs.SGLANG_DSA_FUSE_TOPK.clear()
    assert "SGLANG_DSA_FUSE_TOPK" not in os.environ
    assert envs.SGLANG_DSA_FUSE_TOPK.get() is True
    assert (envs.SGLANG_DSA_FUSE_TOPK.name, envs.SGLANG_DSA_FUSE_TOPK.default) == ("SGLANG_DSA_FUSE_TOPK", True)
    assert envs.SGLANG_USE_AITER.get() is envs.AITER_ENABLE_AOT_GLUON_PA_MQA_LOGITS.get() is False


def test_t3_override_restores_when_the_body_raises():
    """A value of a scope ends with the scope on every path, and was never in the environment."""
    before = dict(os.environ)
    with pytest.raises(RuntimeError, match="body"), envs.SGLANG_DSA_FUSE_TOPK.override(False):
        assert envs.SGLANG_DSA_FUSE_TOPK.get() is False
        assert envs.SGLANG_DSA_FUSE_TOPK.is_set()
        assert dict(os.environ) == before
        raise RuntimeError("body")
    assert envs.SGLANG_DSA_FUSE_TOPK.get() is True
    assert not envs.SGLANG_DSA_FUSE_TOPK.is_set()
    assert dict(os.environ) == before


def test_t3_reading_an_alias_never_writes(monkeypatch):
    """The old name is read as it is now, whenever it changes, and goes without a trace; it is no `is_set`."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    before = dict(os.environ)
    with pytest.warns(DeprecatedName, match="SGLANG_NSA_FUSE_TOPK is deprecated"):
        assert envs.SGLANG_DSA_FUSE_TOPK.get() is False
    assert envs.SGLANG_NSA_FUSE_TOPK is not None
    assert envs.SGLANG_NSA_FUSE_TOPK.get() is False
    assert dict(os.environ) == before
    assert not envs.SGLANG_DSA_FUSE_TOPK.is_set()
    assert not envs.SGLANG_NSA_FUSE_TOPK.is_set()
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "1")
    assert envs.SGLANG_DSA_FUSE_TOPK.get() is True
    monkeypatch.delenv("SGLANG_NSA_FUSE_TOPK")
    assert envs.SGLANG_DSA_FUSE_TOPK.get() is True


def test_t3_none_never_becomes_text(monkeypatch):
    """None is a value of this process, however the variable changes; no variable holds its name."""
    field = envs.SGLANG_DSA_MEM_FRACTION_STATIC
    field.set(0.5)
    assert os.environ["SGLANG_DSA_MEM_FRACTION_STATIC"] == "0.5"
    field.set(None)
    assert "SGLANG_DSA_MEM_FRACTION_STATIC" not in os.environ
    assert "None" not in os.environ.values()
    assert (field.get(), field.is_set()) == (None, True)
    monkeypatch.setenv("SGLANG_DSA_MEM_FRACTION_STATIC", "0.7")
    assert field.get() is None
    field.set(0.6)
    assert field.get() == 0.6
    with field.override(None):
        assert field.get() is None
        assert "None" not in settings.child_env().values()
        assert settings.child_env()["SGLANG_DSA_MEM_FRACTION_STATIC"] == "none"
    field.set(None)
    field.clear()
    assert not field.is_set()
    for refused in (envs.SGLANG_DSA_FUSE_TOPK.set, envs.SGLANG_DSA_FUSE_TOPK.override):
        with pytest.raises(BadValue, match="is not a boolean"):
            refused(None)


@pytest.mark.parametrize("bad", [0, -1, 2, "nan", "inf", float("nan")])
def test_t3_ranges_are_enforced(bad, monkeypatch):
    """A number outside its range is an error with the name, wherever it is given, and changes nothing."""
    field = envs.SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION
    for give in (field.set, field.override):
        with pytest.raises(BadValue, match=r"envs.SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION.* at .*compat.py:\d+\)"):
            give(bad)
    assert not field.is_set()
    monkeypatch.setenv("SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION", str(bad))
    with pytest.raises(BadValue, match="SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION="):
        field.get()


def test_a_bad_text_is_an_error(monkeypatch):
    """It never becomes the default."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    with pytest.raises(BadValue, match="SGLANG_DSA_FUSE_TOPK='maybe'"):
        envs.SGLANG_DSA_FUSE_TOPK.get()


@pytest.mark.parametrize("use", [bool, len, lambda field: 1 if field else 0])
def test_a_field_is_not_its_value(use):
    """A forgotten `.get()` cannot be a condition that always holds."""
    with pytest.raises(RuntimeError, match=r"write envs.SGLANG_DSA_FUSE_TOPK.get\(\)") as caught:
        use(envs.SGLANG_DSA_FUSE_TOPK)
    assert isinstance(caught.value, SettingError)


def test_set_wins_over_what_was_set_for_the_process():
    """What is written last is what is read, whichever way it was written."""
    settings.set(fuse_topk=True)
    envs.SGLANG_DSA_FUSE_TOPK.set("off")
    assert envs.SGLANG_DSA_FUSE_TOPK.get() is False
    settings.set(fuse_topk=True)
    assert envs.SGLANG_DSA_FUSE_TOPK.get() is True
    envs.SGLANG_DSA_FUSE_TOPK.clear()
    assert settings.explain("fuse_topk").source == "default"


def test_children_inherit_what_set_writes():
    """An override reaches them by child_env alone."""
    envs.SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES.set(77)
    program = "from dsa_config.compat.sglang import envs as e; print(e.SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES.get())"

    def child(env=None):
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        return int(done.stdout)

    with envs.SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES.override(88):
        assert child() == 77
        assert child(settings.child_env()) == 88


def test_an_override_is_of_this_context():
    """Another thread reads its own; as a decorator it holds in the body; within it, `set` shows afterwards."""

    @envs.SGLANG_DSA_FUSE_TOPK.override(False)
    def body():
        with ThreadPoolExecutor(1) as pool:
            envs.SGLANG_DSA_FUSE_TOPK.set(True)
            return envs.SGLANG_DSA_FUSE_TOPK.get(), pool.submit(envs.SGLANG_DSA_FUSE_TOPK.get).result()

    assert body() == (False, True)
    with envs.SGLANG_DSA_FUSE_TOPK.override(False):
        origin = str(settings.explain("fuse_topk"))
    assert "envs.SGLANG_DSA_FUSE_TOPK.override at " in origin
    assert "test_sglang_compat.py" in origin


def test_unknown_names_are_told_the_nearest():
    """A typo, and a field's name, are attribute errors that help; hasattr and copy work."""
    with pytest.raises(UnknownSetting, match="did you mean SGLANG_DSA_FUSE_TOPK"):
        envs.SGLANG_DSA_FUSE_TPOK  # noqa: B018
    with pytest.raises(UnknownSetting, match="write envs.SGLANG_DSA_FUSE_TOPK"):
        envs.fuse_topk  # noqa: B018
    assert not hasattr(envs, "SGLANG_NOTHING_LIKE_IT")
    assert copy.copy(envs).SGLANG_DSA_FUSE_TOPK.get() is True
    assert repr(envs) == f"<environment names of {settings!r}>"


def test_attributes_cannot_be_assigned():
    """Neither replaced nor deleted; an unknown name is told as such."""
    with pytest.raises(AttributeError, match=r"use envs.SGLANG_DSA_FUSE_TOPK.set\(...\) and .clear\(\)"):
        envs.SGLANG_DSA_FUSE_TOPK = False
    with pytest.raises(SettingError, match="cannot be assigned or deleted"):
        del envs.SGLANG_NSA_FUSE_TOPK
    with pytest.raises(UnknownSetting, match="did you mean"):
        envs.SGLANG_DSA_FUSE_TPOK = False
    assert envs.SGLANG_DSA_FUSE_TOPK.get() is True


def test_set_writes_what_is_read_back(monkeypatch):
    """Structured values keep their structure; a value without a faithful text is refused before anything changes."""

    class Mine(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="MINE_")
        sizes: list[int] = setting([1])
        number: int = setting(1)
        anything: object = setting(None)

        @field_validator("number")
        @classmethod
        def _double(cls, value: int) -> int:
            return value * 2

    for name in ("SIZES", "NUMBER", "ANYTHING"):
        monkeypatch.setenv(f"MINE_{name}", "noted")
        monkeypatch.delenv(f"MINE_{name}")
    mine = Envs(live(Mine))
    mine.MINE_SIZES.set([1, 2])
    assert mine.MINE_SIZES.get() == [1, 2]
    mine.MINE_SIZES.default.append(5)
    assert mine.MINE_SIZES.default == [1]
    mine.MINE_NUMBER.set(3)
    assert (os.environ["MINE_NUMBER"], mine.MINE_NUMBER.get()) == ("3", 6)
    with pytest.raises(SettingError, match="cannot be given to a child process"):
        mine.MINE_ANYTHING.set(object())
    assert "MINE_ANYTHING" not in os.environ


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_code_reads_the_present_value(monkeypatch):
    """Within torch.compile(fullgraph=True), `get` follows the environment and overrides."""
    import torch

    @torch.compile(fullgraph=True, backend="eager")
    def sign(x):
        return x if envs.SGLANG_DSA_FUSE_TOPK.get() else -x

    one = torch.ones(1)
    assert sign(one) == 1
    with envs.SGLANG_DSA_FUSE_TOPK.override(False):
        assert sign(one) == -1
    assert sign(one) == 1
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    assert sign(one) == -1
