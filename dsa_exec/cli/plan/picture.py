"""The plan as a picture: the memory of each rank, and the logits' peak and chunks against the context."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsa_exec.cli.picture_file import save
from dsa_exec.cli.plan.report import LogitsChunks, PlanReport, RankGroup
from dsa_exec.cli.plan.sizes import count_words

GIB = 2**30
OTHER_COLORS = {"left over by pools": "silver", "logits budget": "black", "all else": "whitesmoke"}
MOST_LEVEL_NAMES = 4
"""Names of more bars than this would run into each other."""


def draw(report: PlanReport, file: Path) -> None:
    """Write the picture.

    Args:
        report: the plan.
        file: where; its ending says the format.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5), layout="constrained")
    memory, peak, chunks = figure.subplots(1, 3)
    _memory(memory, report)
    _against_context(peak, report, lambda it: it.peak_bytes / GIB)
    peak.axhline(report.logits_budget.most_logits_bytes / GIB, color="gray", linestyle="--", linewidth=1)
    peak.set_ylabel("GiB at once")
    peak.set_title("indexer logits of a layer; dashed: what they may take", fontsize=9)
    _against_context(chunks, report, lambda it: it.chunks)
    chunks.set_ylabel("chunks of rows")
    chunks.set_title("chunks that these logits come in", fontsize=9)
    figure.suptitle(f"{report.model.model_type}: {report.tokens} tokens of context on every rank", fontsize=10)
    save(figure, file)


def parts_of(report: PlanReport, group: RankGroup) -> dict[str, int]:
    """The bytes of a rank's memory by what they are for, which together are all of it."""
    memory = report.memory
    logits = min(report.logits_budget.bytes, memory.dynamic_bytes)
    return {
        "weights": memory.weights_bytes,
        **{pool.name: pool.bytes for pool in group.pools},
        "left over by pools": group.free_bytes,
        "logits budget": logits,
        "all else": memory.dynamic_bytes - logits,
    }


def _memory(axes: Any, report: PlanReport) -> None:
    """A bar for each group of ranks, its parts from the bottom up in one order for all."""
    bars = [parts_of(report, group) for group in report.ranks]
    pools = {pool.name: f"C{number}" for number, pool in enumerate(report.pools)}
    bottoms = [0.0] * len(bars)
    for name, color in {"weights": "dimgray", **pools, **OTHER_COLORS}.items():
        heights = [parts.get(name, 0) / GIB for parts in bars]
        axes.bar(range(len(bars)), heights, bottom=bottoms, label=name, color=color, width=0.6)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    turned = 90 if len(bars) > MOST_LEVEL_NAMES else 0
    axes.set_xticks(range(len(bars)), [group.name for group in report.ranks], fontsize=8, rotation=turned)
    axes.set_xlim(-0.6, len(bars) - 0.4)
    axes.set_ylabel("GiB")
    axes.set_title("memory of a rank", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def _against_context(axes: Any, report: PlanReport, height: Callable[[LogitsChunks], float]) -> None:
    """A line for each number of rows."""
    for rows in sorted({it.rows for it in report.logits}):
        cells = [it for it in report.logits if it.rows == rows]
        contexts = [it.context_tokens for it in cells]
        axes.plot(contexts, list(map(height, cells)), marker="o", markersize=3, label=f"{count_words(rows)} rows")
    axes.set_xscale("log", base=2)
    shown = sorted({it.context_tokens for it in report.logits})
    axes.set_xticks(shown, [count_words(it) for it in shown], fontsize=8, rotation=45)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens of context")
    if shown:
        axes.legend(fontsize=7)
