"""flash_mla's schedule objects: one for each shape, shared by layers and steps, and never in the wrong hands."""

from __future__ import annotations

import pytest
import torch
from fakes.flash_mla import FakeFlashMla

from dsa_config import settings
from dsa_exec import MlaCache, sparse_mla_decode
from dsa_exec.core.hardware import assumed
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.ops.sparse_mla_decode import schedules

SCALE = 576**-0.5


@pytest.fixture
def fake():
    """A library on an H100, chosen by name, with no schedule filled yet."""
    schedules.forget_schedules()
    library = FakeFlashMla()
    with assumed(library.capabilities()), settings.override(sparse_mla_decode_backend="flash_mla"):
        yield library
    schedules.forget_schedules()


@pytest.fixture
def capture(monkeypatch):
    """Says whether a graph is being captured."""
    now = {"capturing": False}
    monkeypatch.setattr(schedules, "is_capturing", lambda device: now["capturing"])
    monkeypatch.setattr("dsa_exec.core.head_padding.is_capturing", lambda device: now["capturing"])
    return now


def decode(rows: int = 2, heads: int = 16, k: int = 4, slots: int = 128, first: int = 0):
    cache = MlaCache(torch.zeros(slots, 656, dtype=torch.uint8), MlaLayout())
    picked = torch.full((rows, k), first, dtype=torch.int32)
    return sparse_mla_decode(torch.zeros(rows, heads, 576, dtype=torch.bfloat16), cache, picked, sm_scale=SCALE)


def calls_of_each(library: FakeFlashMla) -> list[int]:
    return [schedule.calls for schedule in library.schedules]


def test_a_shape_has_one_schedule(fake):
    """Other slots, another cache of any size, and heads that are padded to as many, go by the same one."""
    decode()
    decode(first=7)
    decode(heads=24, slots=256)
    decode(k=128)
    assert calls_of_each(fake) == [4]


def test_other_shapes_have_others(fake):
    """More rows, 128 heads, or more than a tile of slots: none may follow the first one's schedule."""
    for _ in range(2):
        decode()
        decode(rows=3)
        decode(heads=65)
        decode(k=129)
    assert calls_of_each(fake) == [2, 2, 2, 2]


def test_another_build_has_its_own(fake):
    """Objects of one module are not another's."""
    decode()
    other = FakeFlashMla()
    with assumed(other.capabilities()):
        decode()
    assert calls_of_each(fake) == calls_of_each(other) == [1]


def test_a_captured_graph_reads_one_that_was_filled_before(fake, capture):
    """Layers of a graph share it, and it lives on: the graph may be replayed for ever."""
    decode()
    capture["capturing"] = True
    decode()
    decode()
    assert calls_of_each(fake) == [3]


def test_a_graph_without_a_warm_up_fills_its_own(fake, capture):
    """What is filled in a graph is filled when it is replayed, and in its memory: nobody else may have it."""
    capture["capturing"] = True
    decode()
    decode()
    capture["capturing"] = False
    decode()
    decode()
    assert calls_of_each(fake) == [1, 1, 2]


def test_nobody_reads_one_that_may_not_be_filled_yet(fake, capture, monkeypatch):
    """Its own stream may. Another, and a graph, which may be replayed on any, wait until it is known to be filled."""
    flag, stream = torch.zeros((), dtype=torch.uint8), {"now": 1}
    monkeypatch.setattr(schedules, "_stream", lambda device: stream["now"])
    monkeypatch.setattr(schedules, "_flag", lambda device, number: flag)
    decode()
    decode()
    assert calls_of_each(fake) == [2]
    stream["now"] = 2
    decode()
    assert calls_of_each(fake) == [2, 1]
    capture["capturing"], stream["now"] = True, 1
    decode()
    assert calls_of_each(fake) == [2, 1, 1]
    flag.fill_(1)
    decode()
    capture["capturing"], stream["now"] = False, 2
    decode()
    assert calls_of_each(fake) == [4, 1, 1]


def run_out(schedule):
    raise RuntimeError("out of memory")


def test_a_call_that_fails_leaves_no_schedule(fake):
    """The next one begins anew."""
    with pytest.raises(RuntimeError, match="out of memory"):
        schedules.with_schedule(fake.module(), torch.device("cpu"), (2, 64, 576, 128, 64), run_out)
    decode()
    assert calls_of_each(fake) == [0, 1]


def test_no_more_than_so_many_are_kept(fake, monkeypatch):
    """Those that are there stay, since graphs may read them; a call beyond them has one of its own."""
    monkeypatch.setattr(schedules, "MOST_KEPT", 1)
    decode()
    decode(rows=3)
    decode(rows=3)
    decode()
    assert calls_of_each(fake) == [2, 1, 1]
