"""What a benchmark of the ops found, as data: `schemas/bench.schema.json`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

OURS = "ours"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Part):
    """Microseconds of a call on the device."""

    median_us: float
    p10_us: float
    p90_us: float
    extra_mib: float | None = Field(
        None, description="the most of the device's memory that a call takes beyond its arguments, its result included"
    )


class Row(_Part):
    """One piece of work."""

    op: str
    work: str = Field(description="its sizes, in words, and the settings")
    settings: dict[str, str] = Field(
        default_factory=dict, description="what ours ran under, beyond the settings at hand"
    )
    captured: bool = Field(description="replays of a CUDA graph of four calls, a fourth of it")
    wrong: str | None = Field(description="what is wrong with our result; such work is not timed")
    why: str = Field(description="which backend ran, and why")
    floor_us: float = Field(description="bytes over the read ceiling, or operations over the matrix ceiling")
    ours: Figure | None = None
    tflops: float | None = None
    gb_per_s: float | None = Field(None, description="of the fewest bytes that must be moved")
    vendors: dict[str, Figure] = Field(default_factory=dict)
    absent: dict[str, str] = Field(default_factory=dict, description="vendors, or ours, that did not run, and why")
    bar: str | None = Field(None, description="what ours must reach")
    bar_met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Our time over the best vendor's."""
        if self.ours is None or not self.vendors:
            return None
        return self.ours.median_us / min(figure.median_us for figure in self.vendors.values())


class BenchRecord(_Part):
    """One run: everything in it was measured in one process on one device."""

    device: str
    arch: str
    torch: str
    triton: str | None
    vendors: dict[str, str] = Field(description="installed vendor packages and their versions")
    date: str
    calls: int = Field(description="timed calls of each")
    rows: list[Row]
