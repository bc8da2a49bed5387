"""The sweep as a picture: the cost of decode against GPUs and context, and the time to the first token."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsa_exec.cli.picture_file import save
from dsa_exec.cli.plan.sizes import count_words
from dsa_exec.cli.plan.sweep_report import SweepCell, SweepDeployment, SweepReport
from dsa_exec.cli.plan.sweep_show import split_words

MOST_NAMED = 60
"""Cells of more than this are too small for words."""


def draw_sweep(report: SweepReport, file: Path) -> None:
    """Write the picture.

    Args:
        report: the sweep.
        file: where; its ending says the format.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(18, 5), layout="constrained")
    cost, cost_lines, first = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    _map(figure, cost, report)
    _lines(cost_lines, report, lambda it: it.gpu_s_per_million_tokens)
    cost_lines.set_ylabel("GPU-seconds a million tokens")
    cost_lines.set_title("cost of decode", fontsize=9)
    _lines(first, report, lambda it: it.s_to_first_token)
    first.set_ylabel("seconds")
    first.set_title("to the first token of a prompt of that context, same split", fontsize=9)
    figure.suptitle(f"{report.model_type}: best split of each number of GPUs; simulated, {report.kernels}", fontsize=10)
    save(figure, file)


def costs_of(report: SweepReport) -> tuple[list[int], list[int], list[list[float]]]:
    """GPUs, contexts, and for each context the cost with each number of GPUs; NaN where nothing fits."""
    gpus = sorted({it.gpus for it in report.cells})
    contexts = sorted({it.context_tokens for it in report.cells})
    cells = _by_place(report)
    costs = [[_cost(cells[count, context]) for count in gpus] for context in contexts]
    return gpus, contexts, costs


def _cost(cell: SweepCell) -> float:
    return math.nan if cell.best is None else cell.best.gpu_s_per_million_tokens


def _by_place(report: SweepReport) -> dict[tuple[int, int], SweepCell]:
    return {(it.gpus, it.context_tokens): it for it in report.cells}


def _map(figure: Any, axes: Any, report: SweepReport) -> None:
    """A field for each cell, by its cost; where nothing fits it stays grey."""
    gpus, contexts, costs = costs_of(report)
    found = [cost for row in costs for cost in row if not math.isnan(cost)]
    axes.set_facecolor("lightgray")
    if found:
        # Logarithms, and not a norm of matplotlib's: that one fails where all costs are the same.
        logs = [[math.log10(cost) for cost in row] for row in costs]
        image = axes.imshow(logs, origin="lower", aspect="auto", cmap="viridis_r")
        bar = figure.colorbar(image, ax=axes, pad=0.01)
        bar.ax.set_ylabel("GPU-seconds a million tokens, log10", fontsize=8)
    else:
        axes.set_xlim(-0.5, len(gpus) - 0.5)
        axes.set_ylim(-0.5, len(contexts) - 0.5)
    axes.set_xticks(range(len(gpus)), [str(it) for it in gpus], fontsize=8)
    axes.set_yticks(range(len(contexts)), [count_words(it) for it in contexts], fontsize=8)
    axes.set_xlabel("GPUs")
    axes.set_ylabel("tokens of context")
    axes.set_title("cost of decode; below it tp x pp, dp, cp", fontsize=9)
    if len(gpus) * len(contexts) > MOST_NAMED:
        return
    cells = _by_place(report)
    middle = (min(found) * max(found)) ** 0.5 if found else 0.0
    for row, context in enumerate(contexts):
        for column, count in enumerate(gpus):
            cell, cost = cells[count, context], costs[row][column]
            text = "nothing\nfits" if cell.best is None else f"{cost:.0f}\n{split_words(cell)}"
            color = "white" if cost > middle else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=color)


def _lines(axes: Any, report: SweepReport, height: Callable[[SweepDeployment], float]) -> None:
    """A line for each context, against GPUs."""
    for context in sorted({it.context_tokens for it in report.cells}):
        cells = [it for it in report.cells if it.context_tokens == context]
        points = [(it.gpus, height(it.best)) for it in cells if it.best is not None]
        label = count_words(context)
        axes.plot([gpus for gpus, _ in points], [it for _, it in points], marker="o", markersize=3, label=label)
    axes.set_xscale("log", base=2)
    if any(it.best is not None for it in report.cells):  # or there is nothing to take a logarithm of
        axes.set_yscale("log")
    shown = sorted({it.gpus for it in report.cells})
    axes.set_xticks(shown, [str(it) for it in shown], fontsize=8, rotation=45)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_xlabel("GPUs")
    axes.legend(fontsize=7, title="context", title_fontsize=7)
