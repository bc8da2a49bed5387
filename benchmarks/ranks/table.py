"""What the ranks found as a table in Markdown."""

from __future__ import annotations

from benchmarks.ranks.record import RanksRecord, RanksRow

HEAD = ("| work | way | GPUs | us (p10 to p90) | times one GPU | bar |", "|---|---|---:|---:|---:|---|")


def page(record: RanksRecord) -> str:
    """The whole record."""
    packages = ", ".join(f"{name} {version}" for name, version in record.vendors.items()) or "no vendor's"
    about = (
        f"{record.gpus} x {record.device}, {record.date}, torch {record.torch}, triton {record.triton}, "
        f"{record.backend}; vendors: {packages}. Medians of {record.calls} calls with a cold L2, of the slowest rank; "
        "all ranks begin at the same time. Decode: replays of a CUDA graph of some calls, a call's share. One GPU: all "
        "of the work on each, in the same run. Every way was compared with one GPU before it was timed."
    )
    return "\n".join(["# Several GPUs", "", about, "", *HEAD, *(line(row) for row in record.rows), ""])


def line(row: RanksRow) -> str:
    """One row of the table."""
    time = "" if row.us is None else f"{row.us.median_us:.1f} ({row.us.p10_us:.1f} to {row.us.p90_us:.1f})"
    if row.wrong is not None:
        time = f"WRONG: {row.wrong}"
    speedup = "" if row.speedup is None or row.gpus == 1 else f"{row.speedup:.2f}"
    bar = ""
    if row.least_speedup is not None:
        bar = f"{row.least_speedup:g}: {'missed' if row.is_missed else 'met'}"
    return f"| {row.work} | {row.way} | {row.gpus} | {time} | {speedup} | {bar} |"
