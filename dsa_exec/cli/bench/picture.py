"""The report of `dsa bench` as a picture: prompts and decode steps against their tokens, a line for each side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsa_exec.cli.bench.report import Figure, ModelBenchReport, Phase, Work
from dsa_exec.cli.picture_file import save
from dsa_exec.cli.plan.sizes import count_words
from dsa_exec.cli.show_report import count

COLORS = {"a": "#2a6f97", "b": "#c1440e"}


def draw(report: ModelBenchReport, file: Path) -> bool:
    """Write the picture, with a part for prompts and one for decode steps, as far as they were timed.

    Args:
        report: what was measured.
        file: where; its ending says the format.

    Returns:
        Whether there is one: not where nothing was timed.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure as Picture

    phases = phases_of(report)
    if not phases:
        return False
    figure = Picture(figsize=(4 + 3.5 * len(phases), 4.5), layout="constrained")
    for axes, phase in zip(figure.subplots(1, len(phases), squeeze=False)[0], phases, strict=True):
        if phase == "prefill":
            _against_tokens(axes, report, phase, lambda work, ms: 1e3 * report.batch * work.tokens / ms)
            axes.set_xlabel("tokens of the prompt")
            axes.set_ylabel("tokens a second")
        else:
            _against_tokens(axes, report, phase, lambda _, ms: ms)
            axes.set_xlabel("tokens before")
            axes.set_ylabel("milliseconds a step")
        axes.set_title(phase, fontsize=9)
    requests = count(report.batch, "request")
    figure.suptitle(f"{report.model} on {report.device}, {report.dtype}, {requests}; bars: p10 to p90", fontsize=9)
    save(figure, file)
    return True


def phases_of(report: ModelBenchReport) -> list[Phase]:
    """What there is to draw."""
    both: tuple[Phase, ...] = ("prefill", "decode")
    return [phase for phase in both if report.timed(phase)]


def label_of(report: ModelBenchReport, name: str) -> str:
    """What a side is called: by what was given for it."""
    snapshot = next(it for it in report.snapshots if it.name == name)
    return f"{name}: {' '.join(snapshot.given) or 'settings as they are'}"


def points_of(
    report: ModelBenchReport, phase: Phase, name: str, height: Callable[[Work, float], float]
) -> list[tuple[int, float, float, float]]:
    """Of each piece that was timed: tokens, height of the median, and how far its tenths lie below and above it."""
    points = []
    for work in report.work:
        figure: Figure | None = next((side.figure for side in work.sides if side.name == name), None)
        if work.phase == phase and figure is not None:
            middle, *ends = (height(work, ms) for ms in (figure.median_ms, figure.p10_ms, figure.p90_ms))
            points.append((work.tokens, middle, middle - min(ends), max(ends) - middle))
    return points


def _against_tokens(axes: Any, report: ModelBenchReport, phase: Phase, height: Callable[[Work, float], float]) -> None:
    shown: set[int] = set()
    for snapshot in report.snapshots:
        points = points_of(report, phase, snapshot.name, height)
        if points:
            tokens, heights, below, above = zip(*points, strict=True)
            label, color = label_of(report, snapshot.name), COLORS[snapshot.name]
            axes.errorbar(
                tokens, heights, (below, above), label=label, color=color, marker="o", markersize=3, capsize=3
            )
            shown |= set(tokens)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(shown), [count_words(it) for it in sorted(shown)])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
