"""Reloading: whole or not at all, on request or when a file changes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import pytest
from pydantic_settings import SettingsConfigDict

from dsa_config import BadValue, LiveSettings, SourceError, live, setting


class Watched(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="WATCHED_")

    a: int = setting(0, ge=0)
    b: int = setting(0, ge=0)


watched = live(Watched)


@pytest.fixture(autouse=True)
def _unload():
    yield
    watched.load()


def _wait_until(holds, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False


def test_reload_reads_again_what_was_loaded(tmp_path):
    """And nothing is seen before."""
    path = tmp_path / "a.toml"
    path.write_text("a = 1")
    watched.load(file=path)
    path.write_text("a = 2")
    assert watched.a == 1
    watched.reload()
    assert watched.a == 2


def test_a_refused_reload_leaves_every_value(tmp_path):
    """One bad value among good ones: none is taken."""
    path = tmp_path / "a.toml"
    path.write_text("a = 1\nb = 1")
    watched.load(file=path)
    path.write_text("a = 2\nb = -1")
    with pytest.raises(BadValue):
        watched.reload()
    assert (watched.a, watched.b) == (1, 1)


def test_the_watcher_takes_a_change(tmp_path):
    """A file that is written again, or replaced as editors do, is loaded without a call."""
    path = tmp_path / "a.toml"
    path.write_text("a = 1")
    watched.load(file=path)
    with watched.watch():
        path.write_text("a = 2")
        assert _wait_until(lambda: watched.a == 2)
        (tmp_path / "new").write_text("a = 3")
        os.replace(tmp_path / "new", path)
        assert _wait_until(lambda: watched.a == 3)
    path.write_text("a = 4")
    time.sleep(0.1)
    assert watched.a == 3, "a stopped watcher does nothing"


def test_the_watcher_sees_a_config_map_swapped(tmp_path):
    """Kubernetes swaps the link `..data` to a new folder; the file's own link never changes."""
    for version, value in (("..v1", 1), ("..v2", 2)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "dsa.toml").write_text(f"a = {value}")
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "dsa.toml").symlink_to("..data/dsa.toml")
    watched.load(file=tmp_path / "dsa.toml")
    assert watched.a == 1
    with watched.watch():
        (tmp_path / "..tmp").symlink_to("..v2")
        os.replace(tmp_path / "..tmp", tmp_path / "..data")
        assert _wait_until(lambda: watched.a == 2)


def test_the_watcher_refuses_a_bad_change_and_takes_the_next_good_one(tmp_path, caplog):
    """The refusal is logged and kept, and watching goes on."""
    path = tmp_path / "a.toml"
    path.write_text("a = 1\nb = 1")
    watched.load(file=path)
    with caplog.at_level(logging.ERROR, "dsa_config"), watched.watch() as watcher:
        path.write_text("a = 2\nb = -1")
        assert _wait_until(lambda: watcher.refusals)
        assert (watched.a, watched.b) == (1, 1)
        path.unlink()
        assert _wait_until(lambda: any(isinstance(it, SourceError) for it in watcher.refusals))
        path.write_text("a = 3")
        assert _wait_until(lambda: watched.a == 3)
    assert "reload refused, the last good values stay: b=-1" in caplog.text


def test_the_watcher_follows_what_a_file_includes(tmp_path):
    """Also a file in another folder that is included only later, and a folder of secrets."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "more.toml").write_text("b = 1")
    (tmp_path / "secrets").mkdir()
    path = tmp_path / "a.toml"
    path.write_text("a = 1")
    watched.load(file=path, secrets_dir=tmp_path / "secrets")
    with watched.watch():
        path.write_text('include = "other/more.toml"')
        assert _wait_until(lambda: watched.b == 1)
        (tmp_path / "other" / "more.toml").write_text("b = 2")
        assert _wait_until(lambda: watched.b == 2)
        (tmp_path / "secrets" / "WATCHED_A").write_text("9")
        assert _wait_until(lambda: watched.a == 9)


def test_a_watcher_can_be_stopped_from_a_listener(tmp_path):
    """Stopping from the watcher's own thread does not wait for itself."""
    path = tmp_path / "a.toml"
    path.write_text("a = 1")
    watched.load(file=path)
    watcher = watched.watch()
    stop_listening = watched.on_change(lambda *_: watcher.stop())
    path.write_text("a = 2")
    assert _wait_until(lambda: not watcher.is_alive())
    stop_listening()
    assert watched.a == 2


def test_watching_without_files_ends_at_once_when_stopped(tmp_path):
    """There may be nothing to watch."""
    with watched.watch() as watcher:
        assert watcher.is_alive()
    assert not watcher.is_alive()


def test_a_program_ends_although_it_watches(tmp_path):
    """The watcher does not keep a process alive."""
    (tmp_path / "a.json").write_text("{}")
    program = f"from dsa_config import settings; settings.load(file={str(tmp_path / 'a.json')!r}); settings.watch()"
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_watching_without_watchfiles_says_what_to_install(monkeypatch):
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(SourceError, match=r"needs watchfiles: pip install 'dsa\[watch\]'"):
        watched.watch()
