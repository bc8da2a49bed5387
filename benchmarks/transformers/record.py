"""What the benchmark of the integration found, as data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pass(_Part):
    """One prefill, or one step of one token."""

    milliseconds: float | None = Field(None, description="median of the repeats; None where it did not run")
    extra_bytes: int | None = Field(None, description="the most that was allocated beyond what there was; GPU only")
    failure: str | None = Field(None, description="why it did not run, such as memory that ran out, in its own words")


class ContextRow(_Part):
    """One way of running the model over one context.

    Attributes:
        tokens: of the context.
        way: who attends, and in what formats.
        prefill: of all its tokens in one pass, the cache made by it included.
        decode: of one more token.
        cache_bytes: what the cache of the context takes.
        is_filled: the cache that the decode reads holds random numbers, since the prefill did not run.
    """

    tokens: int
    way: str
    prefill: Pass
    decode: Pass
    cache_bytes: int | None = None
    is_filled: bool = False


class AgreementRow(_Part):
    """How far texts of the tiny model agree with those of plain transformers, greedily.

    Attributes:
        way: in what formats.
        prompts: how many.
        new_tokens: of each.
        same: the share of new tokens that are the same at the same place.
        first_divergences: of each prompt, which new token is the first to differ; None if none does.
        selected_in_common: of what plain transformers selects for the prompts' rows, the share that is selected too.
        largest_logit_difference: over the steps up to the first divergence of each.
    """

    way: str
    prompts: int
    new_tokens: int
    same: float
    first_divergences: list[int | None]
    selected_in_common: float | None
    largest_logit_difference: float


class TransformersRecord(_Part):
    """One run in one process on one device.

    Attributes:
        geometry: of the synthetic model: what it was made of.
        dtype: of both models.
        repeats: timed prefills of each.
        steps: timed steps of one token of each.
        contexts: see `ContextRow`.
        agreement: see `AgreementRow`.
    """

    device: str
    arch: str
    torch: str
    triton: str | None
    transformers: str
    date: str
    dtype: str
    geometry: dict[str, int]
    repeats: int
    steps: int
    contexts: list[ContextRow]
    agreement: list[AgreementRow]

    def score_bytes(self, tokens: int) -> int:
        """What one f32 tensor of scores takes, rows by index heads by keys, which plain transformers makes."""
        return tokens * tokens * self.geometry["index_n_heads"] * 4
