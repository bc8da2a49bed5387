"""Deprecated names: read and never copied, reported once at the reader's line, and reported when they disagree."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from dsa_config import DeprecatedName, DSASettings, settings
from dsa_config.lifecycle import forget_warnings


def test_a_deprecated_name_is_read_at_call_time(monkeypatch):
    """Its changes and its removal are seen like those of the canonical name."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    with pytest.warns(DeprecatedName, match="SGLANG_NSA_FUSE_TOPK is deprecated since 0.1 .* 1.0: use SGLANG_DSA_"):
        assert settings.fuse_topk is False
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "1")
    assert settings.fuse_topk is True
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    assert settings.fuse_topk is False
    monkeypatch.delenv("SGLANG_NSA_FUSE_TOPK")
    assert settings.fuse_topk is True
    assert "SGLANG_DSA_FUSE_TOPK" not in os.environ


def test_it_warns_once_a_process_at_the_readers_line(monkeypatch):
    """However often it is read, and however filters are reset, one warning, and it points here."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for text in ("0", "1", "0"):
            os.environ["SGLANG_NSA_FUSE_TOPK"] = text
            settings.fuse_topk  # noqa: B018
    assert [warning.filename for warning in caught] == [__file__]
    assert issubclass(caught[0].category, FutureWarning), "DeprecationWarning is hidden from those who set variables"


def test_each_name_warns_for_itself(monkeypatch):
    """Once a process means once for each name, and explain() repeats what there is to say every time."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    monkeypatch.setenv("SGLANG_NSA_HIP_DISABLE_PRESHUFFLE", "1")
    with pytest.warns(DeprecatedName, match="FUSE_TOPK"):
        settings.fuse_topk  # noqa: B018
    with pytest.warns(DeprecatedName, match="PRESHUFFLE"):
        assert settings.hip_disable_preshuffle is True
    for _ in range(2):
        assert "SGLANG_NSA_FUSE_TOPK is deprecated" in settings.explain("fuse_topk").warnings[0]


def test_canonical_wins_and_the_conflict_is_reported(monkeypatch):
    """Both names set to different text: canonical wins, one warning names both with their texts."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "1")
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    with pytest.warns(DeprecatedName) as caught:
        assert settings.fuse_topk is True
    conflicts = [str(warning.message) for warning in caught if "different text" in str(warning.message)]
    assert len(conflicts) == 1
    for part in ("SGLANG_DSA_FUSE_TOPK='1'", "SGLANG_NSA_FUSE_TOPK='0'", "SGLANG_DSA_FUSE_TOPK wins"):
        assert part in conflicts[0]
    assert settings.explain("fuse_topk").conflict == {"SGLANG_DSA_FUSE_TOPK": "1", "SGLANG_NSA_FUSE_TOPK": "0"}


def test_equal_texts_are_no_conflict(monkeypatch):
    """Both names set alike, up to blanks around the text: deprecated, but no conflict."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", " 0 ")
    explanation = settings.explain("fuse_topk")
    assert (explanation.value, explanation.conflict, len(explanation.warnings)) == (False, None, 1)


def test_a_bad_canonical_value_does_not_fall_back_to_the_deprecated_one(monkeypatch):
    """The winner is decided before it is parsed."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    with pytest.raises(ValueError, match="^SGLANG_DSA_FUSE_TOPK='maybe'"):
        settings.fuse_topk  # noqa: B018


def test_an_override_or_process_value_silences_what_it_hides(monkeypatch):
    """A deprecated name that does not decide the value is not warned about by a read."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with settings.override(fuse_topk=True):
            assert settings.fuse_topk is True
        settings.set(fuse_topk=True)
        assert settings.fuse_topk is True


def test_a_warning_turned_into_an_error_is_raised_once(monkeypatch):
    """Under -W error every message is raised once, and then reads give the value."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecatedName, match="is deprecated"):
            settings.fuse_topk  # noqa: B018
        assert settings.fuse_topk is False
        monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "1")
        with pytest.raises(DeprecatedName, match="different text"):
            settings.fuse_topk  # noqa: B018
        assert settings.fuse_topk is True


def test_a_conflict_is_told_once_whatever_the_texts(monkeypatch):
    """Texts that change a thousand times are one conflict."""
    monkeypatch.setenv("SGLANG_DSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD", "5")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(1000):
            monkeypatch.setenv("SGLANG_NSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD", str(number + 10))
            settings.prefill_dense_attn_kv_len_threshold  # noqa: B018
    assert len(caught) == 2


def test_snapshots_and_construction_warn_like_reads(monkeypatch):
    """Whoever reads all settings at once is told too."""
    for read in (settings.snapshot, DSASettings):
        forget_warnings()
        monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
        with pytest.warns(DeprecatedName, match="SGLANG_NSA_FUSE_TOPK"):
            assert read().fuse_topk is False


def test_a_plain_script_sees_the_warning(tmp_path):
    """With Python's default filters, read in a module that is not __main__, the warning is printed with that line."""
    (tmp_path / "some_engine.py").write_text("from dsa_config import settings\n\nFUSED = settings.fuse_topk\n")
    done = subprocess.run(
        [sys.executable, "-c", "import some_engine; print(some_engine.FUSED)"],
        cwd=tmp_path,
        env={**os.environ, "SGLANG_NSA_FUSE_TOPK": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
    assert "some_engine.py:3: DeprecatedName: SGLANG_NSA_FUSE_TOPK is deprecated" in done.stderr
