"""What a configuration says that transformers takes and our attention cannot run."""

from __future__ import annotations

from typing import Any

from dsa_exec.core.checks import MAX_K

INDEXERS_OF_LAYERS = ("full", "shared")
"""A layer selects by itself, or takes what the one before has selected."""


def wrong_in(config: Any) -> str | None:
    """The first value that cannot be run, and what is wanted; None if there is none.

    Args:
        config: of a `deepseek_v32` or `glm_moe_dsa` model, as transformers has completed it.
    """
    topk = config.index_topk
    if not isinstance(topk, int) or isinstance(topk, bool) or not 1 <= topk <= MAX_K:
        return f"index_topk is {topk!r}; wanted an integer from 1 to {MAX_K}"
    if config.model_type == "glm_moe_dsa":  # in others every layer selects, whatever the configuration says
        return _wrong_in_indexers(list(config.indexer_types or ()), config.num_hidden_layers)
    return None


def _wrong_in_indexers(indexers: list[Any], layers: int) -> str | None:
    if len(indexers) < layers:
        return f"indexer_types has {len(indexers)} entries; wanted one for each of {layers} layers"
    for layer, indexer in enumerate(indexers[:layers]):
        if indexer not in INDEXERS_OF_LAYERS:
            return f"indexer_types[{layer}] is {indexer!r}; wanted {' or '.join(map(repr, INDEXERS_OF_LAYERS))}"
        if layer == 0 and indexer == "shared":
            return "indexer_types[0] is 'shared'; wanted 'full': no layer before the first has selected anything"
    return None
