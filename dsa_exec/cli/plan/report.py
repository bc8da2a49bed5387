"""What `dsa plan` reports: one document, printed as tables or JSON. `schemas/plan.schema.json` is made from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from dsa_exec.cli.encodable import Text


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Part):
    """What the configuration says."""

    file: Text
    model_type: Text
    layers: int = Field(description="Without draft layers.")
    draft_layers: int = Field(description="Of the checkpoint; they have caches where there is speculation.")
    kv_width: int = Field(description="Channels of a cached token.")
    index_heads: int
    index_head_dim: int
    index_topk: int
    index_layers: int = Field(description="Layers that have an indexer of their own.")
    max_context_tokens: int
    compress_ratios: dict[str, int] = Field(description="V4: how many layers have each ratio; else empty.")
    window_tokens: int = Field(description="V4: the sliding window; else 0.")


class Input(_Part):
    """A number or word that the plan was made of, and where it came from."""

    name: Text
    value: int | float | Text | list[int] | None = Field(description="Sizes in bytes; null where it is not known.")
    origin: Text = Field(description="An option, a setting, a file, or a default, in words.")


class RankMemory(_Part):
    """What a rank's memory is divided into before pools are planned."""

    gpu_bytes: int
    static_bytes: int = Field(description="For weights and pools: gpu_bytes times mem_fraction_static, rounded down.")
    weights_bytes: int
    weights_are_estimated: bool = Field(description="Nobody said them: an even share of the checkpoint, or 0.")
    pools_bytes: int = Field(description="What is left for pools: static_bytes less weights_bytes.")
    dynamic_bytes: int = Field(description="For all else, indexer logits among it: gpu_bytes less static_bytes.")


class PoolOfModel(_Part):
    """A kind of cache, in all layers of the model."""

    name: Text
    holds: Text
    layers: int = Field(description="Layers that have it, draft layers included.")
    bytes_per_token: int = Field(
        description="What a token of context costs, without padding, rounded up; 0 if the pool does not grow with them."
    )
    exact_bytes_per_token: float


class PoolOfRank(_Part):
    """A kind of cache of one rank."""

    name: Text
    layers: list[int] = Field(description="The layers that have it; draft layers are numbered after the last layer.")
    entries: int = Field(description="Tokens, groups of tokens or rows of state that can be given out.")
    entries_per_page: int
    entry_bytes: int
    pages: int = Field(description="Of one layer, with the extra ones.")
    extra_pages: int = Field(description="Pages that are never given out.")
    page_bytes: int = Field(description="With padding.")
    bytes_per_token: int = Field(description="As above, for the layers of this rank.")
    padding_bytes: int
    extra_bytes: int
    bytes: int = Field(description="Exactly what is allocated: all layers, padding and extra pages included.")
    why: Text


class RankGroup(_Part):
    """Ranks that hold the same."""

    name: Text = Field(description="Such as: pp 0, tp 0-7.")
    ranks: list[int]
    pp: int
    layers: tuple[int, int] = Field(description="The first layer, and the one after the last.")
    draft_layers: int
    fits_tokens: int = Field(description="Tokens that would fit if no other rank had less room.")
    is_limit: bool = Field(description="It has the least room, and so decides how many tokens all ranks hold.")
    bytes_per_token: int
    fixed_bytes: int = Field(description="What of pools_bytes does not grow with tokens.")
    pools_bytes: int
    free_bytes: int = Field(description="What the pools leave of their memory: less than one page more would take.")
    max_requests: int | None = Field(description="Requests that its state pools are sized for; null where it has none.")
    pools: list[PoolOfRank]


class Fit(_Part):
    """How many requests of a length fit at once."""

    context_tokens: int
    requests: int = Field(description="In the deployment, all dp groups together.")
    requests_per_group: int = Field(description="In one dp group.")
    limit: Text = Field(description="What there is no more of.")


class LogitsBudget(_Part):
    """What one chunk of indexer logits may take, as it is while a graph is captured: from total memory alone."""

    bytes: int
    static_bytes: int
    cap_bytes: int | None = Field(description="The absolute limit of the settings, if there is one.")
    most_logits_bytes: int = Field(description="What the logits of a chunk may take of that.")
    free_mem_fraction: float
    why: Text


class LogitsChunks(_Part):
    """How the indexer of a layer scores a prefill of one request."""

    context_tokens: int
    keys: int = Field(description="Keys that each row is scored against: in V4, one for 4 tokens.")
    rows: int = Field(description="Query rows on one rank.")
    chunks: int
    rows_per_chunk: int
    peak_bytes: int = Field(
        description="The most that the logits of a chunk, and what goes with them, take. The workspace that they "
        "lie in may be rounded up, within the budget."
    )
    is_over_budget: bool = Field(description="Even one row is more than the budget.")


class EquationTerm(_Part):
    """One line of the equation."""

    name: Text
    formula: Text
    numbers: Text
    value: Text = Field(description="Exactly: a whole number, or a fraction such as 584/128.")
    unit: Text


class Equation(_Part):
    """How the tokens of a group of ranks came about."""

    ranks: Text
    terms: list[EquationTerm]


class PlanReport(_Part):
    """The report of `dsa plan`."""

    version: Text = Field(description="Of this project.")
    model: Model
    inputs: list[Input]
    memory: RankMemory
    tokens: int = Field(description="Tokens of context that every rank holds.")
    tokens_per_group: int = Field(description="Tokens of one dp group: its cp parts together.")
    tokens_in_all: int = Field(description="Tokens of all dp groups.")
    page_tokens: int
    bytes_per_token: int = Field(
        description="What a token of context costs in all layers, draft layers included, without padding; rounded up."
    )
    pools: list[PoolOfModel]
    ranks: list[RankGroup]
    fits: list[Fit]
    logits_budget: LogitsBudget
    logits: list[LogitsChunks]
    equations: list[Equation]
    notes: list[Text]
