"""The benchmark of the indexer's step: its check finds what is wrong, and its memory is measured and judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.ops import extra_memory, measure
from benchmarks.ops.bars import judged
from benchmarks.ops.extra_memory import MIB, extra_mib
from benchmarks.ops.index_select_work import PEER, decode, prefill, works
from benchmarks.ops.measure import measured
from benchmarks.ops.selection import positions_of, wrong_by_logits, wrong_by_scores
from benchmarks.ops.table import line
from benchmarks.ops.timing import Timed
from benchmarks.ops.work import Bar
from dsa_exec.cli.bench_record import Figure, Row

PREFILL = prefill(40, 2100, 4, device="cpu")
DECODE = decode(3, 2112, 2, 4, page_count=100, device="cpu")


class FakeClock:
    """Ours takes 3 us, every other 4."""

    def in_turn(self, runs, inputs):
        assert all(run(inputs[0]) is not None for run in runs.values())
        return {name: Timed(3.0 if name == "ours" else 4.0, 2.0, 5.0) for name in runs}

    replayed = in_turn


@pytest.fixture
def no_device(monkeypatch):
    """Nothing to wait for, and half a MiB for every call."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(measure, "extra_mib", lambda run, argument: 0.5)


def changed_at(change):
    def changed(picked):
        other = picked.clone()
        change(other)
        return other

    return changed


def swap(picked):
    picked[-1, :2] = picked[-1, :2].flip(0)


def repeat(picked):
    picked[-1, 1] = picked[-1, 0]


def shorten(picked):
    picked[-1, -1] = -1


def leave(picked):
    """Another position in the place of the first: of 2100, 52 are not selected."""
    picked[-1, 0] = 10**6


@pytest.mark.parametrize("work", [PREFILL, DECODE], ids=["prefill", "decode"])
def test_a_right_selection_passes_and_a_changed_one_does_not(work):
    """Order, repetition, positions too few and positions of nobody are found, by a sentence with the row in it."""
    argument = work.inputs(0)
    picked = work.run(argument)
    assert picked.shape[1] == 2048
    assert work.wrong(argument, picked) is None
    last = f"row {len(picked) - 1} "
    for change, words in (
        (swap, "is not ascending"),
        (repeat, "is not ascending"),
        (shorten, "selects 2047 positions, wanted 2048"),
        (leave, "selects a position outside of the 21"),
    ):
        sentence = work.wrong(argument, changed_at(change)(picked))
        assert sentence.startswith(last + words)


@pytest.mark.parametrize("work", [PREFILL, DECODE], ids=["prefill", "decode"])
def test_a_selection_of_other_scores_is_found(work):
    """What is selected with one weight's sign changed is in order, complete, and wrong."""
    argument = work.inputs(0)
    weights = argument.head_weights.clone()
    weights[-1, 0] = -weights[-1, 0]
    other = work.run(argument._replace(head_weights=weights))
    assert "row" in work.wrong(argument, other)


def test_scores_decide_as_far_as_they_are_apart():
    """A worse position, and a better one that is left out; of scores that are all but equal either may be chosen."""
    scores = torch.tensor([5.0, 4.0, 3.0, 3.0 - 1e-4, 1.0], dtype=torch.float64)
    assert wrong_by_scores(scores, torch.tensor([0, 1, 2]), 3) is None
    assert wrong_by_scores(scores, torch.tensor([0, 1, 3]), 3) is None
    assert wrong_by_scores(scores, torch.tensor([0, 1, 4]), 3) == "selects a score of 1, where the k-th is 3"
    assert wrong_by_scores(scores, torch.tensor([1, 2, 3]), 3) == "leaves out a score of 5, where the k-th is 3"
    assert wrong_by_scores(scores[:2], torch.tensor([0, 1, -1]), 3) is None
    assert wrong_by_scores(scores[:2], torch.tensor([0, 1, 1]), 3) == "selects more than the 2 positions that there are"
    assert wrong_by_scores(scores[:0], torch.tensor([-1]), 1) is None


def test_equal_logits_are_selected_from_the_lowest_position():
    """To the place, where scores could not tell."""
    logits = torch.tensor([1.0, 2.0, 1.0, 1.0])
    assert wrong_by_logits(logits, torch.tensor([0, 1]), 2) is None
    told = "differs from a stable top-k of our own logits at 2 of 2 places"
    assert wrong_by_logits(logits, torch.tensor([1, 2]), 2) == told


def test_slots_become_positions_again():
    """Those of other requests, one past the last."""
    slots = torch.tensor([640, 641, 0, 1])
    assert positions_of(slots, torch.tensor([640, 1, 7, 999, -1])).tolist() == [0, 3, 4, 4, -1]
    assert positions_of(slots[:0], torch.tensor([5, -1])).tolist() == [0, -1]


def test_a_row_has_what_a_call_takes(no_device):
    """Of ours and of the vendor, in the table too; a bar on it is judged like one on time."""
    vendors = {"another": lambda: PREFILL.ours}
    bar = Bar(ratio=0.8, extra_mib=0.5)
    row = measured(replace(PREFILL, vendors=vendors, bar=bar), FakeClock(), None)
    assert (row.ours.extra_mib, row.vendors["another"].extra_mib, row.ratio) == (0.5, 0.5, 0.75)
    assert (row.bar, row.bar_met) == ("at most 0.8 x the vendor and 0.5 MiB extra", True)
    assert "| 3.0 (2.0-5.0), 0.5 MiB |" in line(row)
    tighter = row.model_copy(update=judged(Bar(ratio=0.8, extra_mib=0.4), row))
    assert tighter.bar_met is False
    assert "0.4 MiB extra: MISSED" in line(tighter)


@pytest.mark.parametrize(
    ("bar", "extra", "ratio", "met"),
    [
        (Bar(us=2.0), None, 0.5, True),
        (Bar(us=1.0), None, 0.5, False),
        (Bar(ratio=0.5), None, 0.5, True),
        (Bar(ratio=0.4), None, 0.5, False),
        (Bar(ratio=0.4), None, None, None),
        (Bar(ratio=0.4, extra_mib=1), 2.0, None, False),
        (Bar(ratio=0.6, extra_mib=1), 1.0, None, None),
        (Bar(extra_mib=1), None, 0.5, False),
    ],
)
def test_a_bar_is_missed_where_a_part_of_it_is(bar, extra, ratio, met):
    """Without a vendor nothing is known of a ratio, but much of memory; what was not measured is not met."""
    ours = Figure(median_us=2.0, p10_us=1.0, p90_us=3.0, extra_mib=extra)
    vendors = {} if ratio is None else {"it": ours.model_copy(update={"median_us": 2.0 / ratio})}
    row = Row(
        op="topk", work="some", captured=False, wrong=None, why="", floor_us=1.0, ours=ours, vendors=vendors
    )  # fmt: skip
    assert judged(bar, row)["bar_met"] is met


def test_a_bar_may_be_about_other_work_of_ours():
    """Which was measured before; without it nothing is known."""
    ours = Figure(median_us=2.0, p10_us=1.0, p90_us=3.0)
    normal = Row(op="topk", work="normal", captured=False, wrong=None, why="", floor_us=1.0, ours=ours)
    hard = normal.model_copy(update={"work": "hard", "ours": ours.model_copy(update={"median_us": 3.5})})
    bar = Bar(of_ours=(1.5, "normal"))
    assert judged(bar, hard) == {"bar": "at most 1.5 x ours of normal", "bar_met": None}
    assert judged(bar, hard, [normal])["bar_met"] is False
    assert judged(Bar(of_ours=(1.75, "normal")), hard, [normal])["bar_met"] is True


def test_what_our_backend_refuses_is_a_row(no_device):
    """Named where there is no such backend, or where it cannot run: the sentence, no traceback, and a missed bar."""
    named = prefill(40, 2100, 4, settings={"index_select_backend": "nobody"}, bar=Bar(ratio=1), device="cpu")
    row = measured(named, FakeClock(), None)
    assert row.work == "prefill 40x2100, 4 heads, index_select_backend=nobody"
    assert row.ours is None
    assert row.bar_met is False
    assert "index_select_backend='nobody'" in row.absent["ours"]
    assert f"absent: {row.absent['ours']}" in line(row)
    refusing = replace(PREFILL, settings={"mqa_logits_backend": "gluon"})
    row = measured(refusing, FakeClock(), None)
    assert row.absent["ours"].startswith("mqa_logits: gluon: ")
    assert row.settings == {"mqa_logits_backend": "gluon"}


def test_settings_are_those_of_the_work_alone(no_device):
    """A budget under which ours runs in chunks is in the record, and is not set afterwards."""
    budget = replace(PREFILL, settings={"mqa_logits_max_chunk_bytes": 2**16})
    row = measured(budget, FakeClock(), "nobody")
    assert row.wrong is None
    assert row.work.endswith("mqa_logits_max_chunk_bytes=65536")
    assert "topk: torch" in row.why


def test_an_absent_peer_is_told(no_device, monkeypatch):
    """Without the libraries of the peers ours is measured alone."""
    monkeypatch.delenv("SGL_TOPK_LIBRARY", raising=False)
    row = measured(DECODE, FakeClock(), None)
    assert row.ours is not None
    assert row.ratio is None
    assert row.absent[PEER].startswith("ModuleNotFoundError: ")


def test_memory_is_counted_from_where_nothing_is_kept(monkeypatch):
    """A workspace that an earlier call left is let go of first, so that it counts as taken by this one."""
    held = {"now": 100 * MIB, "peak": 0}

    def allocate(size):
        held["now"] += size
        held["peak"] = max(held["peak"], held["now"])

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: held.update(peak=held["now"]))
    monkeypatch.setattr(extra_memory, "release_memory", lambda _: allocate(-60 * MIB))
    assert extra_mib(lambda _: allocate(64 * MIB), None) == 64


def test_the_bars_are_those_that_were_agreed():
    """Time for every step that `auto` runs, memory for those of long contexts; none where a backend is named."""
    found = {work.title: work.bar for work in works()}
    assert found["prefill 4096x65536, 64 heads"] == Bar(ratio=0.85, extra_mib=64)
    assert found["prefill 8192x131072, 64 heads"] == Bar(ratio=0.85, extra_mib=96)
    assert found["prefill 4096x4096, 64 heads"] == Bar(ratio=0.95)
    assert found["decode 1x65536, next_n 1, 64 heads"] == Bar(ratio=0.65, us=17.4)
    assert found["decode 128x65536, next_n 1, 64 heads"] == Bar(ratio=0.93, us=420)
    assert found["prefill 4096x65536, 64 heads, index_select_backend=gluon"] is None
    assert len(found) == 9
