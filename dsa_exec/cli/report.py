"""What `dsa run` reports: one document, printed as text or as JSON. `schemas/run.schema.json` is made from it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dsa_exec.cli.encodable import Text


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
    live_bytes: int | None = Field(
        description="The limit that follows from memory free at the call; null where the driver was not asked."
    )
    cap_bytes: int | None = Field(description="The absolute limit of the settings, if there is one.")
    rows: int
    row_bytes: int = Field(description="What the logits of a row take.")
    chunks: int
    chunk_bytes: int = Field(description="The most that a chunk takes, with all that is allocated beside its logits.")
    least_bytes: int = Field(description="The same of the smallest chunk: of a row, or of a request's rows in decode.")
    is_too_small: bool = Field(description="The budget is less than the smallest chunk takes, and was exceeded.")
    calls: int = Field(description="How many calls there were in all.")
    retries: int = Field(description="How often memory ran out in any of them, and fewer rows were tried.")


class Stage(_Part):
    """A stage of the run."""

    name: str
    seconds: float = Field(description="With those of a pass that an interrupt ended.")
    tokens: int | None = Field(
        description="That were read in prefill, or made in decode after the first of each prompt; null in other "
        "stages, and where an interrupt came before a pass was whole."
    )
    tokens_per_s: float | None = Field(description="Of passes that were whole; null where no token was counted.")


class CacheFormats(_Part):
    """What the caches hold. Plain transformers quantises nothing."""

    index_k: Literal["fp8", "model"] = Field(description="Index keys: FP8, or the model's own dtype.")
    kv: Literal["fp8", "model"] = Field(description="Latent vectors of attention: FP8, or the model's own dtype.")


class AgreementWithPlain(_Part):
    """How far the run agrees with plain transformers on the same prompt."""

    forced: bool = Field(
        description="Tokens are drawn: plain transformers read the run's tokens, and at each step drew one of its own "
        "with the same noise. False: it continued the prompt by itself, greedily."
    )
    same_tokens: bool
    tokens_in_common: int = Field(description="How many new tokens are the same, each in its place.")
    plain_tokens: list[int] = Field(description="The tokens of plain transformers.")
    first_divergence: int | None = Field(description="The first new token that differs, from 0; null if none does.")
    selected_in_common: float | None = Field(
        description="Of the positions that plain transformers selects for the prompt's rows, the share selected here. "
        "Null where nothing was selected, as in a prompt whose rows attend to all that they see (dense_mla_prefill)."
    )
    largest_logit_difference: float = Field(description="Over all steps where both have read the same tokens.")


class SamplingInUse(_Part):
    """How tokens were drawn."""

    temperature: float
    top_k: int | None = Field(description="Drawn among so many of the likeliest tokens; null: among all.")
    top_p: float | None = Field(
        description="Drawn among the fewest likeliest tokens that have this probability together; null: among all."
    )
    seed: int = Field(description="Of the first prompt; each further one has the next number.")


class PromptResult(_Part):
    """The result of one prompt of a file: a line of JSON. `schemas/run_result.schema.json` is made from it."""

    id: str | int = Field(description="The line's id, or its number if it has none.")
    prompt_tokens: int
    tokens: list[int] = Field(description="The new tokens.")
    text: str = Field(description="The new tokens as text.")
    stopped: Literal["end", "length", "interrupted"] = Field(
        description="What ended it: the model, the number of tokens that was wanted, or Ctrl-C before either."
    )
    agreement: AgreementWithPlain | None = Field(
        description="Null without --compare, and where an interrupt came before its end."
    )


class RunReport(_Part):
    """The report of one `dsa run`."""

    model: Text
    device: str
    dtype: str = Field(description="What the model computed in.")
    versions: dict[str, str | None] = Field(description="Of dsa, Python, torch, Triton and transformers.")
    notes: list[str]
    prompt: Text = Field(description="Where the prompt came from, or the prompts.")
    prompts: int = Field(description="How many prompts there are; 1 without --prompts.")
    finished: int = Field(description="How many of them have all their tokens.")
    max_new_tokens: int = Field(description="The most for each prompt that does not say it itself.")
    prompt_tokens: int = Field(description="Of all prompts.")
    new_tokens: int = Field(description="How many there are, of all prompts.")
    tokens: list[int] | None = Field(description="The new tokens; null with --prompts, whose results have them.")
    text: str | None = Field(description="The new tokens as text; null with --prompts.")
    interrupted: bool = Field(description="Ctrl-C ended the run before it was whole.")
    sampling: SamplingInUse | None = Field(description="Null where each token is the likeliest.")
    settings: list[SettingInForce]
    warnings: list[Text]
    caches: CacheFormats
    backends: list[BackendInUse]
    logits: LogitsUse | None = Field(description="Null where no layer runs an indexer.")
    stages: list[Stage]
    agreement: AgreementWithPlain | None = Field(
        description="Null with --no-compare, with --prompts, and where an interrupt came before its end."
    )
    compared: int | None = Field(
        description="With --prompts and --compare: how many prompts were compared; fewer than finished after Ctrl-C."
    )
    alike: int | None = Field(
        description="With --prompts and --compare: how many of those have the tokens of plain transformers."
    )
