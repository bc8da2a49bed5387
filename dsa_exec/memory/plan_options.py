"""What the user of a planner chooses, each with a default."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

KvFormat = Literal["fp8", "bf16", "fp8-raw"]
IndexFormat = Literal["fp8", "fp4"]

KV_FORMATS: tuple[KvFormat, ...] = ("fp8", "bf16", "fp8-raw")
INDEX_FORMATS: tuple[IndexFormat, ...] = ("fp8", "fp4")


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How the caches are to be made. Checked by `plan_pools`, which says which values are allowed.

    Attributes:
        kv: what a cached token is kept in. `fp8`: e4m3 with scales and a bf16 RoPE part (656 bytes in V3.2, 584 in
            V4); `bf16` (1152, 1024); `fp8-raw`: e4m3 throughout, without scales (576, 512).
        index_k: what an index key is kept in: `fp8` with an f32 scale (132 bytes), or in V4 also `fp4` with a scale for
            each 32 channels (68).
        page_tokens: tokens a page; None for 64, or 256 in V4, whose pages are multiples of 128.
        draft_tokens: tokens that speculation puts before the model at once; 0 for no speculation.
        draft_layers: draft layers that have caches; None for those of the checkpoint with speculation, else 0.
        max_running_requests: requests of the whole engine that run at once; None if it is not known.
        context_tokens: the longest context of a request; None for the model's own.
        max_tokens: an upper limit for the tokens of each rank; None for none.
        swa_full_tokens_ratio: V4: tokens of the sliding-window pool for each token of context, in (0, 1]. A float
            counts as the decimal number that it is written as: 0.1 is exactly a tenth.
        c4_state_bytes: V4: bytes of a number in the states of ratio-4 layers: 4 (f32) or 2 (bf16).
        c128_state_bytes: the same of ratio-128 layers.
        online_c128: V4: ratio-128 layers keep one running state a request in place of a ring of tokens.
        stage_layers: layers of each pipeline stage; None for an even split.
    """

    kv: KvFormat = "fp8"
    index_k: IndexFormat = "fp8"
    page_tokens: int | None = None
    draft_tokens: int = 0
    draft_layers: int | None = None
    max_running_requests: int | None = None
    context_tokens: int | None = None
    max_tokens: int | None = None
    swa_full_tokens_ratio: Fraction | float | str = "0.1"
    c4_state_bytes: int = 4
    c128_state_bytes: int = 4
    online_c128: bool = False
    stage_layers: tuple[int, ...] | None = None

    @property
    def speculative(self) -> bool:
        """Whether there is speculation: draft tokens, or draft layers that would make some."""
        return self.draft_tokens > 0 or bool(self.draft_layers)

    @property
    def swa_ratio(self) -> Fraction:
        """The exact ratio.

        Raises:
            ValueError: it is no number.
        """
        return Fraction(str(self.swa_full_tokens_ratio))
