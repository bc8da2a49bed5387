"""What `dsa run` reports: one document, printed as text or as JSON. `schemas/run.schema.json` is made from it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SettingInForce(_Part):
    """A setting that is not at its default."""

    name: str
    value: Any
    source: str = Field(description="The layer it came from: override, set or environment.")
    origin: str = Field(description="Where in that layer, in words.")


class BackendInUse(_Part):
    """A backend that ran, and why it was chosen."""

    op: str
    backend: str
    choice: str = Field(description="What the op's setting says: auto, or a backend's name.")
    why: str
    calls: int


class LogitsUse(_Part):
    """The indexer's logits: the largest call, and the budget that it was chunked under."""

    budget_bytes: int
    static_bytes: int = Field(description="The limit that follows from total memory.")
    live_bytes: int | None = Field(description="The limit that follows from memory free at the call.")
    cap_bytes: int | None = Field(description="The absolute limit of the settings, if there is one.")
    rows: int
    row_bytes: int
    chunks: int
    is_too_small: bool = Field(description="The budget is less than one row; rows came one by one all the same.")
    calls: int = Field(description="How many calls there were in all.")


class Stage(_Part):
    """A stage of the run."""

    name: str
    seconds: float


class AgreementWithPlain(_Part):
    """How far the run agrees with plain transformers on the same prompt."""

    same_tokens: bool
    plain_tokens: list[int]
    first_divergence: int | None = Field(description="The first new token that differs, from 0; null if none does.")
    selected_in_common: float | None = Field(
        description="Of the positions that plain transformers selects for the prompt's rows, the share selected here. "
        "Null where nothing was selected, as in a prompt whose rows attend to all that they see (dense_mla_prefill)."
    )
    largest_logit_difference: float = Field(description="Over all steps where both have read the same tokens.")


class RunReport(_Part):
    """The report of one `dsa run`."""

    model: str
    device: str
    notes: list[str]
    prompt: str = Field(description="Where the prompt came from.")
    prompt_tokens: int
    tokens: list[int] = Field(description="The new tokens.")
    text: str = Field(description="The new tokens as text.")
    settings: list[SettingInForce]
    warnings: list[str]
    backends: list[BackendInUse]
    logits: LogitsUse | None = Field(description="Null where no layer runs an indexer.")
    stages: list[Stage]
    agreement: AgreementWithPlain | None = Field(description="Null with --no-compare.")
