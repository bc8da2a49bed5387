"""One piece of work: inputs, our call, a vendor's call on the same inputs, and what the hardware could do at best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dsa_config import settings

READ_BYTES_PER_S = 3.152e12
"""What a kernel that only reads reaches on an H100 80GB HBM3 (docs/kernels.md)."""
FLOPS_PER_S = {"fp8": 1473e12, "bf16": 785e12}
"""What the best matrix product reaches there in a burst, by the format that it multiplies."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What ours must reach, one thing or several.

    Attributes:
        ratio: of the best vendor's time.
        us: microseconds.
        extra_mib: what a call takes beyond what its caller has.
        of_ours: a ratio to our own time of other work of the op, and the name of that work, which comes before.
    """

    ratio: float | None = None
    us: float | None = None
    extra_mib: float | None = None
    of_ours: tuple[float, str] | None = None


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
        settings: what ours runs under, beyond what is set anyway.
        weighed: what a call takes beyond what its caller has is measured too, of ours and of the vendors'.
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
    settings: dict[str, Any] = field(default_factory=dict)
    weighed: bool = False

    @property
    def title(self) -> str:
        """The name, and the settings that ours runs under."""
        return ", ".join([self.name, *(f"{name}={value}" for name, value in self.settings.items())])

    def run(self, argument: Any) -> Any:
        """Our function, under the settings of this work.

        Raises:
            SettingError: one of them is no setting, or does not take the value.
        """
        if not self.settings:
            return self.ours(argument)
        with settings.override(**self.settings):
            return self.ours(argument)

    @property
    def floor_us(self) -> float:
        """The time that no kernel can beat: bytes over the read ceiling, or operations over the matrix ceiling."""
        compute_s = self.flops / FLOPS_PER_S[self.unit] if self.unit else 0.0
        return max(self.min_bytes / READ_BYTES_PER_S, compute_s) * 1e6


def relative_error(got: Any, wanted: Any) -> float:
    """The norm of the difference over that of what was wanted, in float64."""
    left, right = got.double(), wanted.double()
    return float((left - right).norm() / right.norm())
