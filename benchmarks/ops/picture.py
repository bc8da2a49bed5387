"""A record as a picture: our time beside the vendor's and the floor, as shares of the vendor's."""

from __future__ import annotations

from pathlib import Path

from dsa_exec.cli.bench_record import BenchRecord


def draw(record: BenchRecord, path: Path) -> None:
    """Write the picture.

    Args:
        record: what was measured.
        path: where; its ending says the format.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    rows = [row for row in record.rows if row.ours is not None and row.ratio is not None]
    figure = Figure(figsize=(10, 0.36 * len(rows) + 1.6), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        assert row.ours is not None
        assert row.ratio is not None
        vendor_us = row.ours.median_us / row.ratio
        axes.barh(place, row.ratio, color="#2a6f97" if row.bar_met is not False else "#c1440e", height=0.7)
        axes.plot([row.floor_us / vendor_us] * 2, [place - 0.35, place + 0.35], color="black", linewidth=2)
        axes.text(row.ratio + 0.01, place, f"{row.ratio:.2f}  ({row.ours.median_us:,.0f} us)", va="center", fontsize=8)
    axes.axvline(1, color="gray", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row.op}: {row.work}" for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.15)
    axes.set_xlabel("our time over the best vendor's; black: the floor; red: a bar is missed")
    axes.set_title(f"{record.device}, torch {record.torch}, triton {record.triton}, {record.date}", fontsize=9)
    figure.savefig(path, dpi=120)
