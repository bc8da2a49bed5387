"""What was measured of a kernel beside a vendor's, for `auto` to choose by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """Times of one of our kernels as shares of a vendor's, by query heads and rows.

    Attributes:
        kernel: ours.
        device: what it was measured on.
        record: the file that has the times.
        shares: (heads, rows, share): our time over the vendor's, with what we run around it.
    """

    kernel: str
    device: str
    record: str
    shares: tuple[tuple[int, int, float], ...]

    def declines(self, heads: int, rows: int) -> str | None:
        """Why `auto` passes on the vendor's kernel for such a call; None if it is the faster one.

        What was not measured goes by the measured call that is next below it: fewer heads, then fewer rows. From 65
        heads on both kernels do the work of 128.
        """
        measured_heads = _next_below(128 if heads > 64 else heads, [it[0] for it in self.shares])
        share_of_rows = {it[1]: it[2] for it in self.shares if it[0] == measured_heads}
        measured_rows = _next_below(rows, list(share_of_rows))
        share = share_of_rows[measured_rows]
        if share > 1:
            return None
        return (
            f"{heads} heads, {rows} rows: on {self.device} the {self.kernel} kernel took {share:.2f} of its time "
            f"with {measured_heads} heads and {measured_rows} rows ({self.record})"
        )


def _next_below(number: int, measured: list[int]) -> int:
    """The largest of them that is not above the number; the smallest if all are."""
    return max((it for it in measured if it <= number), default=min(measured))
