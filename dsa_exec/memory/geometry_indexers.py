"""Which layers have an indexer, and so an index-K cache, of their own: others reuse what an earlier one selected."""

from __future__ import annotations

from dsa_exec.memory.geometry_keys import MOST_LAYERS, ConfigKeys

_LETTERS = {"F": "full", "S": "shared"}


def own_indexers(keys: ConfigKeys, layers: int, draft_layers: int) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """For every layer, and for every draft layer that the configuration tells, whether it has an indexer of its own.

    Args:
        keys: the configuration: `indexer_types` (full or shared for each layer), or else `index_topk_pattern` (the same
            as letters F and S, or as words), or else `index_topk_freq` and `index_skip_topk_offset`. With none of them
            every layer has one.
        layers: layers of the model.
        draft_layers: draft layers of the checkpoint.

    Raises:
        GeometryError: one has another length, another word, or makes the first layer reuse what no layer selected.
    """
    key = next((it for it in ("indexer_types", "index_topk_pattern") if keys.get(it) is not None), None)
    if key is None:
        return _by_frequency(keys, layers), ()
    value = keys.get(key)
    if key == "index_topk_pattern" and isinstance(value, str):
        value = [_LETTERS.get(letter, letter) for letter in value]
    entries = keys.entries(key, layers, draft_layers, value)
    assert entries is not None  # the key is there
    for place, entry in enumerate((*entries[0], *entries[1])):
        if entry not in ("full", "shared"):
            raise keys.refusal(f"{key}[{place}]", "full or shared (F or S in a pattern of letters)", entry)
    own, draft = (tuple(entry == "full" for entry in some) for some in entries)
    if not own[0]:
        raise keys.refusal(f"{key}[0]", "full: no layer before the first has selected anything to share", entries[0][0])
    return own, draft


def _by_frequency(keys: ConfigKeys, layers: int) -> tuple[bool, ...]:
    """Every layer before the offset has an indexer, then one of `index_topk_freq`, as transformers counts them."""
    if keys.get("index_topk_freq") is None:
        return (True,) * layers
    every = max(keys.number("index_topk_freq", low=0, high=MOST_LAYERS), 1)
    skip = (
        2
        if keys.get("index_skip_topk_offset") is None
        else keys.number("index_skip_topk_offset", low=1, high=MOST_LAYERS)
    )
    return tuple(max(layer - skip + 1, 0) % every == 0 for layer in range(layers))
