"""What `dsa bench` reports. `schemas/model_bench.schema.json` is made from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dsa_exec.cli.encodable import Text
from dsa_exec.cli.report import SettingInForce

Phase = Literal["prefill", "decode"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Snapshot(_Part):
    """The settings of one side."""

    name: Literal["a", "b"]
    given: list[Text] = Field(description="What was given for it, as it was given; nothing: the settings as they are.")
    settings: list[SettingInForce] = Field(description="All that are not at their defaults.")


class Check(_Part):
    """What was compared before anything was timed."""

    reference: str
    largest_logit_difference: float = Field(description="Over all steps, of the same tokens.")
    allowed_logit_difference: float
    selected_in_common: float | None = Field(
        description="Of the positions that the reference selects for the last rows of the prompt, the share selected "
        "here; null where nothing is selected."
    )
    allowed_in_common: float
    tokens_in_common: int = Field(description="In how many steps the likeliest token is the same.")
    steps: int


class Figure(_Part):
    """Milliseconds of a forward pass: of the whole prompt in prefill, of one new token a request in decode."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    samples: int


class Measured(_Part):
    """What one side took."""

    name: Literal["a", "b"]
    wrong: Text | None = Field(description="What is wrong with its results; such work is not timed.")
    check: Check | None = Field(description="Null where it could not be run.")
    backends: dict[str, str] = Field(description="The backends of each op that is timed, apart by commas.")
    figure: Figure | None = Field(description="Null where a side is wrong, this or the other.")
    tokens_per_s: float | None = Field(description="Of all requests together.")
    peak_bytes: int | None = Field(description="The most that torch had allocated, the model included; null on a CPU.")


class Ratio(_Part):
    """Time of b over time of a, repetition by repetition."""

    median: float
    least: float
    most: float


class Work(_Part):
    """One piece of work."""

    phase: Phase
    tokens: int = Field(description="Of each request: of the prompt in prefill, before the new tokens in decode.")
    sides: list[Measured]
    ratio: Ratio | None = Field(description="Null with one side, and where a side is wrong.")


class ModelBenchReport(_Part):
    """The report of one `dsa bench`: everything in it was measured in one process."""

    model: Text
    device: str
    dtype: str
    versions: dict[str, str | None] = Field(description="Of dsa, Python, torch, Triton and transformers.")
    date: str
    batch: int
    repetitions: int
    decode_tokens: int | None = Field(
        description="Timed steps of a repetition of decode; null where nothing is decoded."
    )
    snapshots: list[Snapshot]
    alike: bool = Field(description="There are two snapshots, of the same settings: their ratio is what chance does.")
    work: list[Work]
    interrupted: bool
    warnings: list[Text]

    def timed(self, phase: Phase) -> bool:
        """Whether there is a figure of this phase."""
        return any(side.figure is not None for work in self.work if work.phase == phase for side in work.sides)

    @property
    def wrong(self) -> list[tuple[Work, Measured]]:
        """Results that are not right."""
        return [(work, side) for work in self.work for side in work.sides if side.wrong is not None]
