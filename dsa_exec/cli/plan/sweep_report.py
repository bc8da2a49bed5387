"""What `dsa plan --sweep` reports: one document, printed as tables or JSON, with a schema of its own."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from dsa_exec.cli.encodable import Text


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SweepNumber(_Part):
    """A number that times are made of, and where it came from."""

    name: Text
    value: float
    origin: Text = Field(description="An option; or measured, of a data sheet, or assumed, in words.")


class SweepFitError(_Part):
    """How far the fit of an op is from its measured times on one GPU."""

    op: Text
    rows: int = Field(description="Measured times.")
    median: float | None = Field(
        description="Of the relative errors, without their signs: 0.05 is five percent. Null where one time is all."
    )
    worst: float | None
    worst_at: Text


class SweepRun(_Part):
    """A run on one or several GPUs, of which no fit was made."""

    work: Text
    way: Text = Field(description="How it was split.")
    gpus: int
    measured_us: float
    predicted_us: float | None = Field(description="Null where the model says nothing of such a run.")
    error: float | None = Field(description="0.1 is ten percent too much.")


class SweepMemory(_Part):
    """Memory of the GPU that has most of it to hold."""

    static_bytes: int = Field(description="For weights and pools.")
    weights_bytes: int
    pools_bytes: int = Field(description="Of the stage that takes most, for all tokens that fit.")
    room_tokens: int = Field(description="Tokens of context that fit on every GPU.")


class SweepDeployment(_Part):
    """The split that decodes most tokens a second."""

    tp: int = Field(description="Processes of a stage.")
    pp: int
    dp: int
    cp: int
    attention_tp: int = Field(description="Processes that share the heads of the same tokens: tp / (dp * cp).")
    requests: int = Field(description="At once, all of the cell's context.")
    tokens_per_s: float = Field(description="Of decode, all requests together.")
    tokens_per_s_per_gpu: float
    gpu_s_per_million_tokens: float = Field(description="The cost of decode.")
    ms_per_token: float = Field(description="Between two tokens of a request.")
    s_to_first_token: float = Field(
        description="Of a prompt of the cell's context in every dp group at once, while nothing decodes."
    )
    stage_ms: dict[str, float] = Field(description="A decode step in the slowest stage, by what takes it.")
    chunk_ms: dict[str, float] = Field(description="The last chunk of such a prompt there, likewise.")
    memory: SweepMemory


class SweepCell(_Part):
    """One number of GPUs with one context."""

    gpus: int
    context_tokens: int
    splits: int = Field(description="Ways to split that were looked at.")
    best: SweepDeployment | None
    why_not: Text = Field(description="Why nothing fits; empty where something does.")


class SweepReport(_Part):
    """The report of `dsa plan --sweep`."""

    version: Text = Field(description="Of this project.")
    file: Text = Field(description="The model's configuration.")
    model_type: Text
    gpu_bytes: int
    static_bytes: int = Field(description="For weights and pools.")
    static_origin: Text
    kernels: Text = Field(description="The device of the kernels' times, and when they were measured.")
    numbers: list[SweepNumber]
    fit_errors: list[SweepFitError]
    runs: list[SweepRun] = Field(description="Empty where there is no record of runs on several GPUs.")
    cells: list[SweepCell]
    notes: list[Text]
