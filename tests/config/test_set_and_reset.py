"""Values for the whole process."""

from __future__ import annotations

import os
import threading
from unittest import mock

import pytest

from dsa_config import AssignmentRefused, BadValue, BadValues, UnknownSetting, settings


def test_set_is_seen_by_every_thread_and_reset_takes_it_back():
    """set() holds for the process, not for a context, and never reaches the environment."""
    seen: list[bool] = []
    settings.set(fuse_topk=False, use_aiter=True)
    thread = threading.Thread(target=lambda: seen.append(settings.fuse_topk))
    thread.start()
    thread.join()
    assert (settings.fuse_topk, settings.use_aiter, seen) == (False, True, [False])
    assert "SGLANG_DSA_FUSE_TOPK" not in os.environ
    settings.reset("fuse_topk")
    assert (settings.fuse_topk, settings.use_aiter) == (True, True)
    settings.reset()
    assert settings.use_aiter is False


def test_none_is_a_value_like_another(monkeypatch):
    """A process value of None is not the same as no process value."""
    monkeypatch.setenv("SGLANG_DSA_MEM_FRACTION_STATIC", "0.5")
    settings.set(mem_fraction_static=None)
    assert settings.mem_fraction_static is None
    settings.reset("SGLANG_DSA_MEM_FRACTION_STATIC")
    assert settings.mem_fraction_static == 0.5


def test_set_is_all_or_nothing():
    """One bad value among several leaves all as they were; the error names each bad one."""
    with pytest.raises(BadValues, match="2 settings"):
        settings.set(use_aiter=True, fuse_topk="perhaps", kv_format="bf16")
    assert settings.use_aiter is False
    with pytest.raises(BadValue, match="takes one of fp8, model"):
        settings.set(kv_format="bf16")


@pytest.mark.parametrize("call", [settings.set, settings.override, lambda **names: settings.reset(*names)])
def test_unknown_names_are_errors(call):
    """A name that no setting has is an error that names the nearest one, and nothing is changed."""
    settings.set(fuse_topk=False)
    with pytest.raises(UnknownSetting, match="did you mean kv_format"):
        call(fuse_topk=True, kv_fromat="fp8")
    assert settings.fuse_topk is False


def expect_refused(assign) -> None:
    with pytest.raises(
        AssignmentRefused, match=r"settings.set\(fuse_topk=.*settings.override\(fuse_topk=.*settings_override\("
    ):
        assign()
    assert settings.fuse_topk is True


def test_assignment_is_refused_and_told_what_to_do():
    """Assigning, deleting and patching a field are refused with the names of what works instead."""

    def assign() -> None:
        settings.fuse_topk = False

    def delete() -> None:
        del settings.fuse_topk

    def monkeypatch_it() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(settings, "fuse_topk", False)

    def mock_it() -> None:
        with mock.patch.object(settings, "fuse_topk", False):
            pass

    for attempt in (assign, delete, monkeypatch_it, mock_it):
        expect_refused(attempt)


def test_assigning_an_unknown_name_says_so():
    """A misspelt assignment is told about the name, not about assignment."""
    with pytest.raises(UnknownSetting, match="did you mean fuse_topk"):
        settings.fuse_topkk = False
