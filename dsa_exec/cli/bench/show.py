"""The report of `dsa bench` as text."""

from __future__ import annotations

from collections.abc import Iterator

from dsa_config.tools.printing import console
from dsa_exec.cli.bench.report import Measured, ModelBenchReport, Snapshot, Work
from dsa_exec.cli.show_report import count, printable, size, table


def show(report: ModelBenchReport) -> None:
    """Print what was measured of what, a row for each side of each piece of work, and what is wrong."""
    out = console()
    for line in _what(report):
        out.print(printable(line), soft_wrap=True)
    out.print()
    titles = ("work", "side", "median", "p10 to p90", "tokens/s", "peak", "b/a", "least to most", "checked against")
    rows = [dict(zip(titles, row, strict=True)) for work in report.work for row in _rows(work, report.repetitions)]
    told = [title for title in titles if any(row[title] for row in rows)]
    out.print(table(tuple(told), (tuple(row[title] for title in told) for row in rows)))
    for line in (*_other_backends(report), *_wrong(report)):
        out.print(printable(line), soft_wrap=True)
    if report.interrupted:
        out.print("interrupted: what was not whole is left out")


def _what(report: ModelBenchReport) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items() if version is not None)
    yield f"{report.model} on {report.device}, {report.dtype}; {versions}"
    times = f"{count(report.batch, 'request')} at a time, {count(report.repetitions, 'repetition')}"
    if report.decode_tokens is not None:
        times += f", of decode {count(report.decode_tokens, 'token')} each"
    yield times
    for snapshot in report.snapshots:
        yield _snapshot(snapshot)
    if report.alike:
        yield "a and b are the same settings: their ratio is what chance does"


def _snapshot(snapshot: Snapshot) -> str:
    settings = ", ".join(f"{it.name}={it.value} ({it.origin})" for it in snapshot.settings)
    return f"{snapshot.name}: {settings or 'all settings at their defaults'}"


def _rows(work: Work, repetitions: int) -> Iterator[tuple[str, ...]]:
    name = f"{work.phase} {work.tokens}"
    for side in work.sides:
        ratio, spread = "", ""
        if work.ratio is not None and side.name == "b":
            ratio = f"{work.ratio.median:.3f}"
            spread = f"{work.ratio.least:.3f} to {work.ratio.most:.3f}" if repetitions > 1 else "one repetition"
        yield name, side.name if len(work.sides) > 1 else "", *_timed(side), ratio, spread, _checked(side)
        name = ""


def _timed(side: Measured) -> tuple[str, ...]:
    if side.figure is None or side.tokens_per_s is None:
        return "not timed" if side.wrong is None else "wrong", "", "", ""
    it = side.figure
    peak = "" if side.peak_bytes is None else size(side.peak_bytes)
    spread = f"{it.p10_ms:.2f} to {it.p90_ms:.2f}" if it.samples > 1 else "one pass"
    return f"{it.median_ms:.2f} ms", spread, f"{side.tokens_per_s:.0f}", peak


def _checked(side: Measured) -> str:
    it = side.check
    if it is None:
        return "-"
    return f"{it.reference}: {it.tokens_in_common} of {it.steps} tokens, logits to {it.largest_logit_difference:.2g}"


def _other_backends(report: ModelBenchReport) -> Iterator[str]:
    """Ops that two sides run on different backends."""
    told: set[str] = set()
    for work in report.work:
        if len(work.sides) < 2 or any(side.check is None for side in work.sides):  # one did not run to its end
            continue
        a, b = (side.backends for side in work.sides)
        told |= {
            f"{work.phase}: {op} ran on {a.get(op, 'nothing')} in a, on {b.get(op, 'nothing')} in b"
            for op in {*a, *b}
            if a.get(op) != b.get(op)
        }
    return iter(sorted(told))


def _wrong(report: ModelBenchReport) -> Iterator[str]:
    for work, side in report.wrong:
        yield f"wrong: {work.phase} {work.tokens}, {side.name}: {side.wrong}"
