"""The checks of what a planner is asked for: one sentence for each wrong option, with its value and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from dsa_exec.core.errors import PlanError
from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.geometry_keys import MOST_LAYERS
from dsa_exec.memory.plan_options import INDEX_FORMATS, KV_FORMATS, PlanOptions
from dsa_exec.memory.plan_world import World
from dsa_exec.memory.pools_v4_state import require_draft_tokens

_INT32 = 2**31 - 1
"""Positions and slots are int32."""


def require_options(geometry: ModelGeometry, world: World, options: PlanOptions) -> None:
    """Check each option. Those of V4 are not looked at for other models, except that they have no fp4 index keys.

    Raises:
        PlanError: an option is out of range, or does not fit the model or the world.
    """
    _require_word("kv format", options.kv, KV_FORMATS)
    _require_word("index-K format", options.index_k, INDEX_FORMATS)
    if options.index_k != "fp8" and not geometry.compressed:
        raise PlanError("index-K format", options.index_k, f"fp8 for {geometry.model_type}")
    _require_number("draft tokens", options.draft_tokens, 0)
    for what, value, low, high in (
        ("draft layers", options.draft_layers, 0, MOST_LAYERS),
        ("page size", options.page_tokens, 1, _INT32),
        ("context length", options.context_tokens, 1, _INT32),
        ("max tokens", options.max_tokens, 1, _INT32),
        ("max_running_requests", options.max_running_requests, world.dp, _INT32),
    ):
        if value is not None:
            _require_number(what, value, low, high)
    if geometry.compressed:
        for what, value in (("c4 state", options.c4_state_bytes), ("c128 state", options.c128_state_bytes)):
            if not isinstance(value, int) or value not in (2, 4):
                raise PlanError(f"bytes of a number of {what}", value, "4 (f32) or 2 (bf16)")
        _require_ratio(options)
        require_draft_tokens(geometry, options)


def _require_word(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise PlanError(what, repr(value), f"one of {', '.join(allowed)}")


def _require_number(what: str, value: int, low: int, high: int = _INT32) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        wanted = f"an integer from {low} to {high}"
        if what == "max_running_requests" and low > 1:
            wanted += f", because dp={low} groups share them"
        raise PlanError(what, repr(value), wanted)


def _require_ratio(options: PlanOptions) -> None:
    wanted = "a number greater than 0 and at most 1"
    try:
        ratio = options.swa_ratio
    except (ValueError, ZeroDivisionError):
        raise PlanError("swa_full_tokens_ratio", repr(options.swa_full_tokens_ratio), wanted) from None
    if not 0 < ratio <= 1:
        raise PlanError("swa_full_tokens_ratio", options.swa_full_tokens_ratio, wanted)
