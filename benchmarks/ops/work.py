"""One piece of work: inputs, our call, a vendor's call on the same inputs, and what the hardware could do at best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

READ_BYTES_PER_S = 3.152e12
"""What a kernel that only reads reaches on an H100 80GB HBM3 (docs/kernels.md)."""
FLOPS_PER_S = {"fp8": 1473e12, "bf16": 785e12}
"""What the best matrix product reaches there in a burst, by the format that it multiplies."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What ours must reach: a ratio to the vendor's time, or microseconds."""

    ratio: float | None = None
    us: float | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One row of the table.

    Attributes:
        op: the op.
        name: its sizes, in words.
        inputs: fresh random arguments, by a seed.
        ours: our public function on them.
        wrong: what is wrong with a result, in words; None if it is right.
        min_bytes: the fewest bytes that must be read or written.
        flops: operations of the matrix units.
        unit: the format that they multiply.
        vendors: by name, what makes a call on the same inputs. Raises ModuleNotFoundError where it is not installed.
        captured: time replays of a CUDA graph of four calls on four inputs, a fourth of it.
        bar: what ours must reach, if that was agreed.
    """

    op: str
    name: str
    inputs: Callable[[int], Any]
    ours: Callable[[Any], Any]
    wrong: Callable[[Any, Any], str | None]
    min_bytes: float
    flops: float = 0.0
    unit: str | None = None
    vendors: dict[str, Callable[[], Callable[[Any], Any]]] = field(default_factory=dict)
    captured: bool = False
    bar: Bar | None = None

    @property
    def floor_us(self) -> float:
        """The time that no kernel can beat: bytes over the read ceiling, or operations over the matrix ceiling."""
        compute_s = self.flops / FLOPS_PER_S[self.unit] if self.unit else 0.0
        return max(self.min_bytes / READ_BYTES_PER_S, compute_s) * 1e6


def relative_error(got: Any, wanted: Any) -> float:
    """The norm of the difference over that of what was wanted, in float64."""
    left, right = got.double(), wanted.double()
    return float((left - right).norm() / right.norm())
