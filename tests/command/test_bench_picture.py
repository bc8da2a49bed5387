"""The picture of `dsa bench`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dsa_exec.cli.bench.picture import draw, label_of, phases_of, points_of
from dsa_exec.cli.bench.report import Figure, Measured, ModelBenchReport, Snapshot, Work

HIDDEN = "import sys; sys.modules['matplotlib'] = None; from dsa_exec.cli import main; main()"


def measured(name: str, milliseconds: float | None) -> Measured:
    figure = None
    if milliseconds is not None:
        figure = Figure(median_ms=milliseconds, p10_ms=milliseconds / 2, p90_ms=milliseconds * 2, samples=3)
    wrong = "wrong" if figure is None else None
    return Measured(name=name, wrong=wrong, check=None, backends={}, figure=figure, tokens_per_s=1.0, peak_bytes=None)


def report_of(*work: Work) -> ModelBenchReport:
    return ModelBenchReport(
        model="a model",
        device="cpu",
        dtype="float32",
        versions={},
        date="2026-01-01",
        batch=2,
        repetitions=3,
        decode_tokens=4,
        snapshots=[Snapshot(name="a", given=[], settings=[]), Snapshot(name="b", given=["fuse_topk=0"], settings=[])],
        alike=False,
        work=list(work),
        interrupted=False,
        warnings=[],
    )


def work(phase: str, tokens: int, a: float | None, b: float | None) -> Work:
    return Work(phase=phase, tokens=tokens, sides=[measured("a", a), measured("b", b)], ratio=None)


def test_points_are_what_was_timed():
    """Of one phase and side, with the way to its tenths on both sides; what is wrong has no point."""
    report = report_of(work("prefill", 10, 4.0, 8.0), work("prefill", 20, None, 2.0), work("decode", 30, 1.0, 1.0))
    assert points_of(report, "prefill", "a", lambda _, ms: ms) == [(10, 4.0, 2.0, 4.0)]
    assert [tokens for tokens, *_ in points_of(report, "prefill", "b", lambda _, ms: ms)] == [10, 20]
    # Tokens a second fall where milliseconds rise: below is what the slowest tenth reached.
    assert points_of(report, "prefill", "a", lambda it, ms: it.tokens / ms) == [(10, 2.5, 1.25, 2.5)]


def test_sides_are_called_by_what_was_given():
    """Or by nothing having been changed."""
    report = report_of()
    assert (label_of(report, "a"), label_of(report, "b")) == ("a: settings as they are", "b: fuse_topk=0")


def test_a_picture_has_parts_for_what_was_timed():
    """Not for what is wrong, and not for what nobody asked for."""
    prefill, decode = work("prefill", 10, 4.0, 8.0), work("decode", 30, None, 1.0)
    assert phases_of(report_of(prefill, decode)) == ["prefill", "decode"]
    assert phases_of(report_of(decode)) == ["decode"]
    assert phases_of(report_of(prefill, work("decode", 30, None, None))) == ["prefill"]


@pytest.mark.parametrize("works", [[], [work("prefill", 20, None, None)]])
def test_no_picture_of_nothing(tmp_path, works):
    """Nothing was timed: no file."""
    pytest.importorskip("matplotlib")
    assert draw(report_of(*works), tmp_path / "x.png") is False
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    "works",
    [
        [work("decode", 64, 1.0, None)],
        [work("prefill", 1000, 1.0, 2.0)],
        [work("prefill", 1000, 1.0, 2.0), work("decode", 64, 1.0, 1.0)],
    ],
)
@pytest.mark.parametrize(("name", "begins"), [("x.png", b"\x89PNG"), ("x.svg", b"<?xml"), ("x.pdf", b"%PDF")])
def test_a_picture_of_anything(tmp_path, works, name, begins):
    """Also of one point, and of one side."""
    pytest.importorskip("matplotlib")
    assert draw(report_of(*works), tmp_path / name) is True
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_the_command_draws(dsa_here, checkpoint, tmp_path):
    """The text ends with where the picture is."""
    pytest.importorskip("matplotlib")
    file = tmp_path / "bench.png"
    base = (
        "bench",
        "--model",
        checkpoint("deepseek_v32"),
        "--repetitions",
        1,
        "--prefill",
        "10,20",
        "--b",
        "fuse_topk=0",
    )
    done = dsa_here(*base, "--plot", file)
    assert done.code == 0
    assert done.out.endswith(f"\npicture: {file}\n")
    assert file.stat().st_size > 5000


def test_the_command_says_that_there_is_nothing_to_draw(dsa_here, checkpoint, tmp_path):
    """All work is wrong: no file, and no line that names one as written."""
    pytest.importorskip("matplotlib")
    file = tmp_path / "bench.png"
    base = "bench", "--model", checkpoint("deepseek_v32"), "--repetitions", 1, "--prefill", 10
    done = dsa_here(*base, "--a", "paged_mqa_logits_backend=gluon", "--plot", file)
    assert done.code == 1
    assert done.out.endswith(f"\nno picture {file}: nothing was timed\n")
    assert not file.exists()


def test_without_matplotlib():
    """One sentence with how to install it, before anything is measured."""
    command = [sys.executable, "-c", HIDDEN, "bench", "--plot", "x.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    words = "dsa: --plot x.png: needs matplotlib: pip install 'dsa[plot]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", words)
