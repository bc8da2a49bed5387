"""Which code reads which setting, found out from its source."""

from __future__ import annotations

import sys

import pytest
from pydantic_settings import SettingsConfigDict

from dsa_config import DSASettings, LiveSettings, live, setting
from dsa_config.declared import settings_of
from dsa_config.tools.readers import readers_of, unread


def test_what_the_execution_package_reads():
    """Fields by attribute, backends through the dispatch, each with the line."""
    found = readers_of(DSASettings)
    assert any(place.startswith("dsa_exec/ops/index_select/__init__.py:") for place in found["fuse_topk"])
    assert any(place.startswith("dsa_exec/ops/topk/__init__.py:") for place in found["topk_backend"])
    assert {name for name in settings_of(DSASettings) if name.endswith("_backend")} <= set(found)
    assert any(place.startswith("dsa_exec/caches/") for place in found["hip_disable_preshuffle"])
    assert unread(DSASettings) == frozenset(settings_of(DSASettings)) - set(found)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A class that says that the package `reading` reads it, and a function that writes the package."""

    def write(**files):
        folder = tmp_path / "reading"
        folder.mkdir()
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))

        class Read(LiveSettings):
            model_config = SettingsConfigDict(env_prefix="READ_")
            read_by = ("reading",)
            one: int = setting(1)
            two: int = setting(2)
            a_mode: int = setting(3)
            b_mode: int = setting(4)

        module = type(sys)("home_of_settings")
        module.knobs = live(Read)
        monkeypatch.setitem(sys.modules, "home_of_settings", module)
        return Read

    return write


def test_every_form_of_reading(package):
    """Attributes, getattr with a name, getattr with a made-up name, imports of the object and of its module."""
    cls = package(
        __init__="import home_of_settings as home, os, reading.other\nx = home.knobs.one\n",
        choose=(
            "from home_of_settings import knobs as k\n"
            "def mode(op, more):\n    return getattr(k, f'{op}_mode')\n"
            "def odd(a, b):\n    return getattr(k, f'{a}{b}'), getattr(a, f'{b}_mode'), getattr(a, 'two')\n"
        ),
        use="from reading.choose import mode as m\nfrom . import choose\nm('a', 1)\nm(x, 2)\nprint('b')\nos.two\n",
        named="from home_of_settings import knobs\nfrom elsewhere import two\ngetattr(knobs, 'two')\nknobs.override\n",
    )
    assert readers_of(cls) == {
        "one": ("reading/__init__.py:2",),
        "two": ("reading/named.py:3",),
        "a_mode": ("reading/use.py:3",),
    }
    assert unread(cls) == {"b_mode"}


def test_what_cannot_be_known(package):
    """A package that is not installed, one that cannot be parsed, or none: nothing is said to be unread."""

    class Absent(LiveSettings):
        read_by = ("no_such_package",)
        one: int = setting(1)

    class Nobody(LiveSettings):
        one: int = setting(1)

    broken = package(__init__="def\n")
    for cls in (Absent, Nobody, broken):
        assert readers_of(cls) is None
        assert unread(cls) == frozenset()
