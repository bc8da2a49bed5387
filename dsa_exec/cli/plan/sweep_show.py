"""The report of `dsa plan --sweep` as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from dsa_config.tools.printing import console
from dsa_exec.cli.plan.sizes import count_words
from dsa_exec.cli.plan.sweep_report import SweepCell, SweepReport
from dsa_exec.cli.show_report import count, printable, size, table

TITLES = (
    "GPUs", "context", "tp x pp, dp, cp", "requests", "tokens/s/GPU", "GPU-s/M tokens", "ms/token", "first token, s",
    "weights", "pools",
)  # fmt: skip


def show_sweep(report: SweepReport) -> None:
    """Print the best split of each cell or why nothing fits, what it was made of, and how far off that is."""
    out = console()
    out.print(printable(f"{report.file}: {report.model_type}; kernels of {report.kernels}"), soft_wrap=True)
    memory = f"{size(report.gpu_bytes)} a GPU, {size(report.static_bytes)} for weights and pools"
    out.print(f"{memory} ({printable(report.static_origin)})", soft_wrap=True)
    out.print()
    fitting = [it for it in report.cells if it.best is not None]
    if fitting:
        out.print(table(TITLES, map(_row, fitting)))
        out.print()
    for line in _nothing(report.cells):
        out.print(printable(line), soft_wrap=True)
    out.print("error of the fits against the times that they are made of, on one GPU")
    rows = (
        (it.op, str(it.rows), _percent(it.median), _percent(it.worst), "" if it.worst is None else it.worst_at)
        for it in report.fit_errors
    )
    out.print(table(("op", "times", "median", "worst", "worst at"), rows))
    out.print()
    for line in (*_runs(report), *_numbers(report)):
        out.print(printable(line), soft_wrap=True)
    out.print()
    for note in report.notes:
        out.print(f"note: {printable(note)}", soft_wrap=True)


def split_words(cell: SweepCell) -> str:
    """The split of a cell: `8 x 2, 4, 2`."""
    it = cell.best
    return "" if it is None else f"{it.tp} x {it.pp}, {it.dp}, {it.cp}"


def _row(cell: SweepCell) -> tuple[str, ...]:
    it = cell.best
    assert it is not None  # those without are told apart
    return (
        str(cell.gpus),
        count_words(cell.context_tokens),
        split_words(cell),
        str(it.requests),
        f"{it.tokens_per_s_per_gpu:.1f}",
        f"{it.gpu_s_per_million_tokens:.0f}",
        f"{it.ms_per_token:.1f}",
        f"{it.s_to_first_token:.1f}",
        size(it.memory.weights_bytes),
        size(it.memory.pools_bytes),
    )


def _nothing(cells: Sequence[SweepCell]) -> Iterator[str]:
    """What does not fit, contexts of one number of GPUs with the same reason together."""
    reasons: dict[tuple[int, str], list[int]] = {}
    for cell in cells:
        if cell.best is None:
            reasons.setdefault((cell.gpus, cell.why_not), []).append(cell.context_tokens)
    for (gpus, why), contexts in reasons.items():
        yield f"{count(gpus, 'GPU')}, {', '.join(map(count_words, contexts))}: nothing fits: {why}"
    if reasons:
        yield ""


def _runs(report: SweepReport) -> Iterator[str]:
    if not any(it.gpus > 1 for it in report.runs):
        yield "error against runs on two GPUs: not measured: there is no record of any"
    for gpus in sorted({it.gpus for it in report.runs}):
        runs = [it for it in report.runs if it.gpus == gpus]
        errors = [abs(it.error) for it in runs if it.error is not None]
        told = f"error against runs on {gpus} GPU{'s' if gpus > 1 else ''}: {len(errors)} of {len(runs)} predicted"
        if errors:
            told += f"; median {_percent(statistics.median(errors))}, worst {_percent(max(errors))}"
        yield told


def _numbers(report: SweepReport) -> Iterator[str]:
    for it in report.numbers:
        yield f"{it.name} {it.value:g} ({it.origin})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
