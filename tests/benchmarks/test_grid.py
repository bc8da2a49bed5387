"""The grid: its sizes, what is recorded of each, what it flags, and its pages, as far as they go without a GPU."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.command import main
from benchmarks.grid import command
from benchmarks.grid import measure as measuring
from benchmarks.grid.cases import Case, cases
from benchmarks.grid.choices import Choice, choices, chosen
from benchmarks.grid.growth import growth
from benchmarks.grid.measure import measure
from benchmarks.grid.picture import draw, panels
from benchmarks.grid.record import GridRecord, GridRow
from benchmarks.grid.table import line, page
from benchmarks.ops.index_select_work import decode, prefill, visible
from benchmarks.ops.timing import Timed
from dsa_exec import record_calls
from dsa_exec.cli.bench_record import Figure

BY_TORCH = {"index_select_backend": "torch", "mqa_logits_backend": "torch", "topk_backend": "torch"}
TORCH = "logits by torch, top-k by torch"
SMALL = Case(prefill(40, 2100, 4, device="cpu"), "prefill", 40, 2100, 4)
LARGER = Case(prefill(40, 2200, 4, device="cpu"), "prefill", 40, 2200, 4)
STEP = Case(decode(2, 2112, 1, 4, page_count=80, device="cpu"), "decode", 2, 2112, 4)
H100_BYTES = 79 * 2**30


class FakeClock:
    """Times by name, 10 us where none is given; notes how often each was called."""

    def __init__(self, **times_us):
        self.times_us = times_us
        self.calls = {}

    def in_turn(self, runs, inputs, calls=None):
        for name, run in runs.items():
            run(inputs[0])
            self.calls.setdefault(name, []).append(calls)
        found = {name: self.times_us.get(name, 10.0) for name in runs}
        return {name: Timed(us, us, us) for name, us in found.items()}


@pytest.fixture(autouse=True)
def no_device(monkeypatch):
    """Nothing to wait for or to release, a MiB for every call, and two choices beside that of `auto`."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(measuring, "release_memory", lambda _: None)
    monkeypatch.setattr(measuring, "extra_mib", lambda run, argument: 1.0)
    monkeypatch.setattr(measuring, "replay_of", lambda run, inputs: lambda _: [run(it) for it in inputs])
    found = [Choice("other", BY_TORCH), Choice(TORCH, BY_TORCH), Choice("no", {"topk_backend": "gluon"})]
    monkeypatch.setattr(measuring, "choices", lambda op, phase: found)


def rows_of(*todo, clock=None, seconds=None, without=(), now=None):
    ticks = itertools.count() if now is None else now
    return list(measure(todo, clock or FakeClock(), 12, seconds, without, lambda: next(ticks)))


def filled(rows=4096, context=65536, us=10.0, **given):
    ours = Figure(median_us=us, p10_us=us, p90_us=us, extra_mib=given.pop("extra_mib", None))
    sizes = {"op": "index_select", "phase": "prefill", "rows": rows, "context": context, "heads": 64, "floor_us": 5.0}
    return GridRow(**{**sizes, "auto": "gluon", "ours": ours, "choices": {"gluon": ours}, **given})


def record_of(*rows):
    about = {"device": "a GPU", "arch": "sm90", "torch": "2", "triton": "3", "vendors": {"it": "1"}, "date": "now"}
    return GridRecord(**about, calls=12, rows=list(rows))


def test_the_grid_has_every_size_once():
    """Prefill of no more rows than keys, decode of all batches; heads of the index and of the attention."""
    found = list(cases(H100_BYTES))
    sizes = {(it.work.op, it.phase, it.rows, it.context, it.next_n, it.heads) for it in found}
    assert len(sizes) == len(found) == 72 + 378 + 5 + 45
    for size in ((1024, 4096), (4096, 65536), (32768, 262144)):
        assert {("index_select", "prefill", *size, 1, heads) for heads in (32, 64)} <= sizes
    assert ("index_select", "prefill", 32768, 16384, 1, 64) not in sizes
    for batch, next_n in itertools.product((1, 8, 256), (1, 2, 4)):
        assert ("index_select", "decode", batch, 262144, next_n, 32) in sizes
    assert {it.heads for it in found if it.work.op.startswith("sparse")} == {8, 16, 32, 64, 128}
    assert {it.rows for it in found if it.work.op == "sparse_mla_decode"} == {2**power for power in range(9)}
    assert not [it for it in found if it.absent is not None]


def test_lines_go_from_small_to_large():
    """What is left out since it was far behind at a smaller size was measured before."""
    for _, found in itertools.groupby(cases(H100_BYTES), key=lambda it: it.line):
        sizes = [(it.rows, it.heads, it.context) for it in found]
        assert sizes == sorted(sizes)
    lines = [key for key, _ in itertools.groupby(it.line for it in cases(H100_BYTES))]
    assert len(set(lines)) == len(lines)


def test_a_pool_that_the_device_has_no_room_for_is_a_reason():
    """The largest steps are absent, with both numbers of pages; nothing is taken of them."""
    (row,) = rows_of(next(it for it in cases(2**33) if it.absent is not None))
    assert row.absent == "takes 262144 pages of keys, the pool has 203360"
    assert row.ours is None


def test_the_choices_are_backends_and_pairs_of_them():
    """Of a selection: fused ones, and one that scores with one that picks; never the specification."""
    steps = [it.name for it in choices("index_select", "decode")]
    assert "triton" in steps
    assert "logits by triton, top-k by gluon" in steps
    assert not [name for name in steps if "torch" in name or "aiter" in name]
    (pair,) = [it for it in choices("index_select", "prefill") if it.name == "logits by triton, top-k by gluon"]
    parts = {"mqa_logits_backend": "triton", "topk_backend": "gluon"}
    assert pair.settings == {"index_select_backend": "torch", **parts}
    attention = [it.name for it in choices("sparse_mla_decode", "decode")]
    assert attention == ["flash_mla", "gluon", "triton"]


def test_what_auto_chose_has_the_name_of_a_choice():
    """So that it is not timed a second time."""
    with record_calls() as trace:
        SMALL.work.run(SMALL.work.inputs(0))
    assert chosen("index_select", "prefill", trace) == TORCH


def test_a_row_has_auto_and_every_choice():
    """That of `auto` is not timed twice; what refuses is left out with its sentence, and so are absent peers."""
    clock = FakeClock(ours=10.0, other=9.0)
    (row,) = rows_of(SMALL, clock=clock)
    assert row.auto == TORCH
    assert row.choices[TORCH] == row.ours
    assert row.ours.extra_mib == 1.0
    assert (row.best, row.is_behind) == ("other", True)
    assert row.behind == pytest.approx(1 / 9)
    assert row.left_out["no"].startswith("topk: gluon: ")
    assert set(row.absent_peers) == set(SMALL.work.vendors)
    assert set(clock.calls) == {"ours", "other"}
    assert "11% SLOW" in line(row)


def test_auto_within_five_percent_is_not_flagged():
    """Nor is it where nothing else takes the call."""
    (row,) = rows_of(SMALL, clock=FakeClock(ours=10.0, other=9.6))
    assert not row.is_behind
    assert "SLOW" not in line(row)
    assert filled().behind == 0


def test_long_calls_are_timed_less_often_and_far_ones_once():
    """At least five calls, at most those asked for; a choice far behind has one, and none at larger sizes."""
    short, long = FakeClock(ours=10.0, other=31.0), FakeClock(ours=9e3, other=10e3)
    rows_of(SMALL, clock=short)
    assert short.calls == {"ours": [1, 12], "other": [1]}
    rows_of(SMALL, clock=long)
    assert long.calls["ours"] == [1, 5]
    first, second = rows_of(SMALL, LARGER, clock=FakeClock(ours=10.0, other=90.0))
    assert first.choices["other"].median_us == 90
    assert second.left_out["other"] == "took 9.0 x the fastest at prefill 40x2100, 4 heads"
    again = rows_of(SMALL, replace(LARGER, rows=41), clock=FakeClock(ours=10.0, other=90.0))
    assert "other" in again[1].choices


def test_choices_of_a_backend_can_be_left_out():
    """Those that name it, with the option as the reason; what `auto` chose is not one of them."""
    (row,) = rows_of(SMALL, without=["gluon", "torch"])
    assert row.left_out == {"no": "left out by --without gluon", "other": "left out by --without torch"}
    assert list(row.choices) == [TORCH]


def test_decode_is_a_share_of_a_replay():
    """A graph has four calls on four inputs; what cannot be captured is told and does not end the row."""
    (row,) = rows_of(STEP, clock=FakeClock(ours=40.0, other=80.0))
    assert (row.ours.median_us, row.choices["other"].median_us) == (10, 20)
    assert row.ours.extra_mib is None


def test_a_choice_that_fails_is_not_one_that_refuses(monkeypatch):
    """It is told apart, the row is measured all the same, and the command does not call it a success."""

    def captured(run, inputs):
        if run.__qualname__.startswith("_under"):
            raise RuntimeError("operation not permitted when stream is capturing")
        return lambda _: None

    monkeypatch.setattr(measuring, "replay_of", captured)
    (row,) = rows_of(STEP)
    assert row.ours is not None
    assert row.broken == {"other": "not captured: operation not permitted when stream is capturing"}
    assert command._is_bad(record_of(row), checked=False)
    assert "other: not captured" in page(record_of(row))


def test_memory_that_runs_out_ends_a_row_only():
    """It is absent with the reason; another error is a wrong row, and the next is measured."""

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 32.00 GiB")

    def fails(_):
        raise RuntimeError("misaligned address")

    todo = [replace(SMALL, work=replace(SMALL.work, ours=ours)) for ours in (full, fails)]
    absent, wrong, fine = rows_of(*todo, SMALL)
    assert absent.absent == "OutOfMemoryError: CUDA out of memory. Tried to allocate 32.00 GiB"
    assert wrong.wrong == "RuntimeError: misaligned address"
    assert fine.ours is not None
    assert "absent: OutOfMemoryError" in line(absent)
    assert not command._is_bad(record_of(absent), checked=True)
    assert command._is_bad(record_of(wrong), checked=False)


def test_a_wrong_result_is_not_timed():
    """The sentence of the check, and no figures."""
    clock = FakeClock()
    wrong = replace(SMALL.work, ours=lambda it: SMALL.work.ours(it).flip(1))
    (row,) = rows_of(replace(SMALL, work=wrong), clock=clock)
    assert row.wrong.startswith("row 0 is not ascending")
    assert row.ours is None
    assert clock.calls == {}
    assert "WRONG: row 0" in line(row)


def test_after_the_time_nothing_is_measured():
    """The rest of the sizes is in the record with that reason."""
    first, second = rows_of(SMALL, LARGER, seconds=10, now=iter([0, 5, 10]))
    assert first.ours is not None
    assert second.absent == "not measured: the 10 seconds of --seconds were over"
    assert second.context == 2200


def test_growth_is_of_pairs_that_are_seen():
    """Twice the pairs in twice the time is linear, whatever the context; more than a tenth off is not."""
    lengths = (8192, 16384, 65536, 262144)
    even = [filled(context=it, us=visible(4096, it) / 1e3, extra_mib=64.0) for it in lengths]
    (found,) = growth(even)
    assert (found.rows, found.heads, found.is_linear, found.is_flat) == (4096, 64, True, True)
    assert list(found.relative) == [16384, 65536, 262144]
    steep = [*even[:3], filled(context=262144, us=visible(4096, 262144) / 1e3 * 1.11, extra_mib=66.0)]
    (found,) = growth(steep)
    assert found.relative[262144] == pytest.approx(1.11)
    assert (found.is_linear, found.is_flat) == (False, False)
    assert growth(even[:2]) == []
    assert "| 4096 | 64 | 1.00 | 1.00 | 1.11 | NO | 64.0 to 66.0 | NO |" in page(record_of(*steep))
    assert command._is_bad(record_of(*steep), checked=True)
    assert not command._is_bad(record_of(*even), checked=True)


def test_a_page_says_where_auto_is_slow():
    """By size, with what it took and what would have been faster; and how ratios are spread."""
    faster = Figure(median_us=8.0, p10_us=8.0, p90_us=8.0)
    slow = filled(peers={"a peer": Figure(median_us=20.0, p10_us=20.0, p90_us=20.0)})
    slow = slow.model_copy(update={"choices": {**slow.choices, "triton": faster}})
    text = page(record_of(slow))
    told = "- index_select, prefill 4096x65536, next_n 1, 64 heads: `auto` took gluon, 10.0 us; triton takes 8.0"
    assert told in text
    assert "| index_select | prefill, 1 | 1 | 0 | 0.50, 0.50, 0.50 | 1 |" in text
    assert "| 4096 | 65536 | 1 | 64 | 10.0 | gluon | triton 8.0 | 25% SLOW | a peer 20.0 | 0.50 | 50% |" in text
    assert "- nowhere" in page(record_of(filled()))


def test_a_picture_has_a_panel_for_each_kind_of_size(tmp_path):
    """Rows or requests by context, attention by heads; sizes without figures are told in their cells."""
    pytest.importorskip("matplotlib")
    peer = {"a peer": Figure(median_us=20.0, p10_us=20.0, p90_us=20.0)}
    absent = {"ours": None, "auto": None, "choices": {}, "absent": "too large"}
    rows = [
        filled(peers=peer),
        filled(context=262144, **absent),
        filled(phase="decode", next_n=2, rows=8),
        filled(op="sparse_mla_decode", phase="decode", rows=8, context=32768),
    ]
    assert [it.title for it in panels(rows)] == [
        "index_select, prefill, 64 heads",
        "index_select, decode, 64 heads, next_n 2",
        "sparse_mla_decode, context 32768",
    ]
    draw(record_of(*rows), tmp_path / "grid.svg")
    drawn = (tmp_path / "grid.svg").read_text()
    assert len(drawn) > 1000
    draw(record_of(), tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


def test_the_command_shows_a_record_again(tmp_path):
    """As data and as tables, the same as it was; 1 under --check where `auto` is slow."""
    first, again, tables = tmp_path / "grid.json", tmp_path / "again.json", tmp_path / "grid.md"
    command._write(record_of(filled(), filled(rows=1024, context=4096)), first)
    assert main(["grid", "--read", str(first), "--json", str(again), "--markdown", str(tables), "--check"]) == 0
    assert again.read_text() == first.read_text()
    assert tables.read_text() == page(command._read(first))
    slow = filled().model_copy(update={"choices": {"triton": Figure(median_us=8.0, p10_us=8.0, p90_us=8.0)}})
    command._write(record_of(slow), first)
    assert main(["grid", "--read", str(first)]) == 0
    assert main(["grid", "--read", str(first), "--check"]) == 1


def test_the_command_measures_what_is_asked_for(tmp_path, monkeypatch, capsys):
    """Only an op or a phase, and the record is there although the run is interrupted."""
    seen, left_out = [], []

    def measured(todo, clock, calls, seconds, without):
        seen.extend(todo)
        left_out.extend(without)
        yield filled()
        raise KeyboardInterrupt

    about = record_of().model_dump(exclude={"rows", "calls", "seconds"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command, "total_memory_bytes", lambda _: H100_BYTES)
    monkeypatch.setattr(command, "machine", lambda: about)
    monkeypatch.setattr(command, "Clock", lambda calls: None)
    monkeypatch.setattr(command, "measure", measured)
    data = tmp_path / "grid.json"
    asked = ["--op", "index_select", "--phase", "decode", "--without", "triton", "--seconds", "9.5"]
    assert main(["grid", *asked, "--json", str(data)]) == 0
    assert left_out == ["triton"]
    assert {(it.work.op, it.phase) for it in seen} == {("index_select", "decode")}
    record = command._read(data)
    assert (record.seconds, record.calls, len(record.rows)) == (9.5, 12, 1)
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--read", "nowhere.json"], "nowhere.json"),
        (["--op", "topk"], "invalid choice: 'topk'"),
        (["--seconds", "-1"], "'-1'; wanted a number of seconds above 0"),
        (["--seconds", "soon"], "'soon'; wanted a number of seconds above 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments, words, capsys):
    """Exit 2 and no traceback."""
    try:
        status = main(["grid", *arguments])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert words in capsys.readouterr().err


def test_without_a_gpu_there_is_nothing_to_measure(monkeypatch, capsys):
    """One sentence, and what can be done without one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["grid"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_the_committed_record_is_the_committed_page():
    """Where there is one."""
    path = Path(__file__).parents[2] / "benchmarks/results/h100/grid.json"
    if path.exists():
        assert page(command._read(path)) == path.with_suffix(".md").read_text()
    else:
        assert not path.with_suffix(".md").exists()
