"""Snapshots: of the process, of a printed one, of a file alone; and what differs between two."""

from __future__ import annotations

import json

import pytest

from dsa_config import BadValue, DSASettings, SettingError, SourceError, settings
from dsa_config.declared import MASK, settings_of
from dsa_config.tools.snapshots import Snapshot, Value, compare, show_document, snapshot_of


def test_a_process_and_its_printed_snapshot_are_equal(tmp_path):
    """What is printed and read back has the same values."""
    path = tmp_path / "now.json"
    with settings.override(fuse_topk=False):
        path.write_text(json.dumps(show_document(), default=str))
        assert compare(snapshot_of("-"), snapshot_of(str(path))).differences == []
    found = compare(snapshot_of("-"), snapshot_of(str(path)))
    assert [(it.name, it.a.value, it.b.value) for it in found.differences] == [("fuse_topk", True, False)]
    assert found.document()["differences"][0]["b"]["origin"].startswith("settings.override at ")
    assert found.document()["equal"] is False


def test_a_snapshot_of_changes_only_stands_for_all(tmp_path):
    """What it does not list is at its default."""
    path = tmp_path / "changed.json"
    with settings.override(kv_format="model"):
        path.write_text(json.dumps(show_document(changed_only=True), default=str))
    snapshot = snapshot_of(str(path))
    assert list(snapshot.values) == list(settings_of(DSASettings))
    assert snapshot.values["kv_format"].value == "model"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.toml", "kv_format = 'model'"),
        ("x.yaml", "kv_format: model"),
        ("x.json", '{"kv_format": "model"}'),
        (".env", "SGLANG_DSA_KV_FORMAT=model"),
    ],
)
def test_a_file_alone(name, text, tmp_path, monkeypatch):
    """A config or dotenv file is read with nothing beside it."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    path = tmp_path / name
    path.write_text(text)
    snapshot = snapshot_of(str(path))
    assert snapshot.values["kv_format"].value == "model"
    assert str(path) in snapshot.values["kv_format"].origin
    assert snapshot.values["fuse_topk"].value is True


def test_files_that_are_no_snapshot(tmp_path):
    """An absent file, a broken one, rows without names and bad values are errors."""
    bad = tmp_path / "bad.json"
    for text in ("{", '{"settings": [{"name": 1}]}', '{"settings": [1]}', '{"settings": {}}', "{" * 100_000):
        bad.write_text(text)
        with pytest.raises(SettingError):
            snapshot_of(str(bad))
    with pytest.raises(SourceError, match="cannot be read"):
        snapshot_of(str(tmp_path / "none"))
    bad.write_text('{"fuse_topk": "maybe"}')
    with pytest.raises(BadValue):
        snapshot_of(str(bad))


def test_what_is_said_beside_the_differences():
    """Missing settings, secrets that cannot be compared, and other versions."""
    left = Snapshot("A", "1.0", {"one": Value(1, "x"), "token": Value(MASK, "x"), "same": Value(2, "x")})
    right = Snapshot("B", "2.0", {"two": Value(1, "x"), "token": Value(MASK, "y"), "same": Value(2, "y")})
    found = compare(left, right)
    assert [(it.name, it.left, it.right) for it in found.differences] == [
        ("one", "1 (from x)", "not there"),
        ("two", "not there", "1 (from x)"),
    ]
    assert found.document()["differences"][0]["b"] is None
    assert found.notes == ["token: a secret, which is not compared", "A is of version 1.0, B of 2.0"]
