"""Errors travel: through pickles and process pools, with their fields."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

from dsa_config import AssignmentRefused, BadValue, BadValues, UnknownSetting, settings


def bad_override() -> None:
    settings.override(fuse_topk="maybe")


def error_of(call) -> Exception:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (bad_override, BadValue),
        (lambda: settings.set(fuse_topk="maybe", use_aiter=3), BadValues),
        (lambda: settings.explain("nonsense"), UnknownSetting),
        (lambda: setattr(settings, "fuse_topk", 1), AssignmentRefused),
    ],
)
def test_a_pickled_error_is_the_same_error(call, kind):
    """Type, message and fields survive."""
    error = error_of(call)
    copied = pickle.loads(pickle.dumps(error))
    assert type(error) is type(copied) is kind
    assert str(copied) == str(error)
    assert set(vars(copied)) == set(vars(error))


def test_a_process_pool_brings_the_error_home():
    """A bad value in a worker is that error in the parent, and the pool goes on."""
    with ProcessPoolExecutor(1) as pool:
        with pytest.raises(BadValue, match="fuse_topk='maybe'"):
            pool.submit(bad_override).result()
        assert pool.submit(len, "ok").result() == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: settings.set(SGLANG_DSA_FUSE_TOPK=False), "it is the environment name of fuse_topk"),
        (lambda: settings.override(fuse=False), "did you mean fuse_topk"),
        (lambda: setattr(settings, "explain", 1), "it is a method of the live object"),
    ],
)
def test_hints(call, words):
    """A name that is nearly right, or right somewhere else, is told what to use."""
    with pytest.raises(UnknownSetting, match=words):
        call()
