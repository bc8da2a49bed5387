"""The environment of C against `os.environ`: what one side alone has, and what is kept secret."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import pytest
from own_settings import own
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from dsa_config import LiveSettings, Renamed, setting
from dsa_config.tools import c_environment as tool
from dsa_config.tools.c_environment import Difference, compare_environments, variables_in

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the environment of C is looked at on Linux alone")


class Engine(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="TOOL_")

    chunk: int = setting(8, deprecated_names=[Renamed("OLD_CHUNK", "1.0", "3.0")])
    key: SecretStr = setting(SecretStr("none"))


def differences() -> dict[str, Difference]:
    compared = compare_environments(Engine)
    assert compared is not None
    return {it.name: it for it in compared.differences}


@ON_LINUX
def test_both_sides_see_what_is_assigned_to_os_environ(monkeypatch):
    """Python writes it through, and takes it away on both sides."""
    monkeypatch.setenv("TOOL_CHUNK", "9")
    monkeypatch.setenv("AITER_X", "caf\udce9")  # bytes that are no UTF-8
    assert differences() == {}
    monkeypatch.delenv("TOOL_CHUNK")
    assert differences() == {}


@ON_LINUX
def test_putenv_and_unsetenv_are_seen_by_c_alone(monkeypatch):
    """A name of a setting, old or new, and a vendor's variable: each with both values and what it belongs to."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    os.unsetenv("TRITON_INTERPRET")
    monkeypatch.setenv("OLD_CHUNK", "1")
    os.putenv("OLD_CHUNK", "2")
    os.putenv("TOOL_CONFIG", "x.toml")
    os.putenv("DG_NEW", "")
    os.putenv("STRANGER", "1")
    try:
        found = differences()
    finally:
        for name in ("DG_NEW", "STRANGER", "TOOL_CONFIG"):
            os.unsetenv(name)
    assert found == {
        "OLD_CHUNK": Difference("OLD_CHUNK", "chunk", "1", "2"),
        "TRITON_INTERPRET": Difference("TRITON_INTERPRET", None, "1", None),
        "TOOL_CONFIG": Difference("TOOL_CONFIG", None, None, "x.toml"),
        "DG_NEW": Difference("DG_NEW", None, None, ""),
    }
    assert str(found["OLD_CHUNK"]) == "OLD_CHUNK is '1' in os.environ, and '2' for libraries that call getenv"
    assert str(found["DG_NEW"]) == "DG_NEW is not set in os.environ, and '' for libraries that call getenv"


@ON_LINUX
def test_secrets_are_told_to_differ_and_not_shown(monkeypatch):
    """By the type of the setting, or by what a vendor's variable is called."""
    monkeypatch.setenv("TOOL_KEY", "hunter2")
    os.putenv("TOOL_KEY", "hunter3")
    os.putenv("AITER_HUB_TOKEN", "hunter4")
    try:
        found = differences()
    finally:
        os.unsetenv("AITER_HUB_TOKEN")
    assert set(found) == {"TOOL_KEY", "AITER_HUB_TOKEN"}
    assert "hunter" not in repr(found)
    assert found["AITER_HUB_TOKEN"].in_python is None


CHILD = """
import ctypes, json
from dsa_config.tools.c_environment import c_environment, compare_environments
from dsa_config import DSASettings
libc = ctypes.CDLL(None)
libc.setenv(b"SGLANG_USE_AITER", b"1", 1)
libc.putenv(b"DG_ONCE=1")
told = [str(it) for it in compare_environments(DSASettings).differences]
libc.clearenv()
print(json.dumps([told, c_environment()]))
"""


@ON_LINUX
def test_what_a_library_written_in_c_does():
    """setenv and clearenv of C, which Python does not hear of; without any variable there is nothing, and no crash."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TRITON_")}
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=True)
    told, left = json.loads(done.stdout)
    assert told == [
        "SGLANG_USE_AITER is not set in os.environ, and '1' for libraries that call getenv",
        "DG_ONCE is not set in os.environ, and '1' for libraries that call getenv",
    ]
    assert left == {}


def test_a_replaced_os_environ_is_what_settings_see(monkeypatch):
    """Settings read the object that stands there now, so that is what is compared."""
    engine = own(Engine)
    monkeypatch.setattr(tool, "c_environment", lambda: {"TOOL_CHUNK": "1"})
    monkeypatch.setattr(os, "environ", {"TOOL_CHUNK": "2"})
    assert engine.chunk == 2
    assert differences() == {"TOOL_CHUNK": Difference("TOOL_CHUNK", "chunk", "2", "1")}


def test_elsewhere_it_is_not_looked_at(monkeypatch):
    """None, which is not the same as no difference."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert compare_environments(Engine) is None


def test_every_name_that_matters_is_compared(monkeypatch):
    """Settings under all their names, control variables, and vendors' variables, each once."""
    monkeypatch.setattr(tool, "c_environment", lambda: {"AITER_A": "1", "DG_B": "1", "HOME": "/"})
    compared = compare_environments(Engine)
    assert compared is not None
    wanted = {"TOOL_CHUNK", "OLD_CHUNK", "TOOL_KEY", "TOOL_CONFIG", "CUDA_VISIBLE_DEVICES", "AITER_A", "DG_B"}
    assert wanted <= set(compared.names)
    assert "HOME" not in compared.names
    assert len(compared.names) == len(set(compared.names))


def test_entries_as_getenv_reads_them():
    """Of two with one name the first; one without a sign is none; a null pointer is an empty environment."""
    entries = (ctypes.c_char_p * 5)(b"A=1", b"SIGNLESS", b"A=2", b"B=x=y", None)
    assert variables_in(entries) == {"A": "1", "B": "x=y"}
    assert variables_in(ctypes.POINTER(ctypes.c_char_p)()) == {}
