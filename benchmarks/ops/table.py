"""A record as a table in Markdown."""

from __future__ import annotations

from dsa_exec.cli.bench_record import OURS, BenchRecord, Figure, Row

HEAD = (
    "| op | work | ours, us | vendor, us | ratio | TFLOPS | GB/s | share of the floor | bar |",
    "|---|---|---:|---:|---:|---:|---:|---:|---|",
)
MEMORY = "MiB: the most of the device's memory that a call takes beyond its arguments, its result included."


def page(record: BenchRecord) -> str:
    """The whole record."""
    packages = ", ".join(f"{name} {version}" for name, version in record.vendors.items())
    vendors = packages or "not installed as packages, versions unknown"
    about = (
        f"{record.device}, {record.date}, torch {record.torch}, triton {record.triton}; vendors: {vendors}. "
        f"Medians of {record.calls} calls with a cold L2, in brackets the tenth and ninetieth percentile; (graph): "
        "replays of a CUDA graph of four calls, a fourth of it."
    )
    if any(row.ours is not None and row.ours.extra_mib is not None for row in record.rows):
        about += f" {MEMORY}"
    return "\n".join(["# Ops", "", about, "", *HEAD, *map(line, record.rows), ""])


def line(row: Row) -> str:
    """One row of the table."""
    name = f"{row.work} (graph)" if row.captured else row.work
    if row.ours is None:
        what = f"absent: {row.absent.get(OURS)}" if row.wrong is None else f"wrong: {row.wrong}"
        return f"| {row.op} | {name} | {what} | | | | | | {_bar(row)} |"
    vendors = "; ".join(f"{vendor} {_times(figure)}" for vendor, figure in row.vendors.items())
    absent = "; ".join(f"{vendor}: {why}" for vendor, why in row.absent.items())
    cells = [
        row.op,
        name,
        _times(row.ours),
        "; ".join(part for part in (vendors, absent) if part),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.tflops is None else f"{row.tflops:.0f}",
        f"{row.gb_per_s:.0f}",
        f"{row.floor_us / row.ours.median_us:.0%}",
        _bar(row),
    ]
    return f"| {' | '.join(cells)} |"


def _bar(row: Row) -> str:
    return "" if row.bar is None else f"{row.bar}: {({True: 'met', False: 'MISSED', None: 'no vendor'})[row.bar_met]}"


def _times(figure: Figure) -> str:
    took = f"{figure.median_us:.1f} ({figure.p10_us:.1f}-{figure.p90_us:.1f})"
    return took if figure.extra_mib is None else f"{took}, {figure.extra_mib:.1f} MiB"
