"""How much each layer of V4 compresses its context, from either way of writing it in a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsa_exec.memory.geometry_keys import ConfigKeys

RATIOS = (0, 4, 128)
"""Tokens of context that one compressed token stands for; 0 for layers that have only the window."""

DEFAULT_RATES = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
WINDOW_ONLY = "sliding_attention"


def compress_ratios(keys: ConfigKeys, layers: int, draft_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ratio of every layer, and of every draft layer that the configuration tells.

    Args:
        keys: the configuration: `compress_ratios`, or else `layer_types` and `compress_rates`. A type of layer that
            `compress_rates` does not have only has the window, which is noted unless it is `sliding_attention`.
        layers: layers of the model.
        draft_layers: draft layers of the checkpoint.

    Raises:
        GeometryError: neither is there, one has another length, or a ratio is none that pools exist for.
    """
    derived = _from_types(keys, layers, draft_layers)
    given = keys.entries("compress_ratios", layers, draft_layers)
    if given is None:
        if derived is None:
            wanted = f"a list of {layers} entries, each 0, 4 or 128, or else layer_types and compress_rates"
            raise keys.refusal("compress_ratios", wanted)
        return derived
    for place, entry in enumerate((*given[0], *given[1])):
        if not _is_ratio(entry):
            raise keys.refusal(f"compress_ratios[{place}]", "0 (window only), 4 or 128", entry)
    ratios = tuple(given[0]), tuple(given[1])
    if derived is not None and derived[0] != ratios[0]:
        keys.notes.append(f"compress_ratios and layer_types of {keys.origin} disagree: compress_ratios counts.")
    return ratios


def _from_types(keys: ConfigKeys, layers: int, draft_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    types = keys.entries("layer_types", layers, draft_layers)
    if types is None:
        return None
    rates = _rates(keys)
    others = sorted({str(type) for type in types[0] + types[1]} - {*rates, WINDOW_ONLY})
    if others:
        told = f"layer_types of {keys.origin} has {', '.join(others)}, for which compress_rates has no entry"
        keys.notes.append(f"{told}: such layers count as window only.")
    of_layers, of_draft = (tuple(rates.get(str(type), 0) for type in some) for some in types)
    return of_layers, of_draft


def _rates(keys: ConfigKeys) -> dict[str, int]:
    """The ratio of every type of layer that compresses."""
    rates = keys.get("compress_rates")
    if rates is None:
        rates = dict(DEFAULT_RATES)
        for key, type in (
            ("compress_rate_csa", "compressed_sparse_attention"),
            ("compress_rate_hca", "heavily_compressed_attention"),
        ):
            if keys.get(key) is not None:
                _require_ratio(keys, key, keys.get(key))
                rates[type] = keys.get(key)
        return rates
    if not isinstance(rates, Mapping):
        raise keys.refusal("compress_rates", "an object that gives a ratio for each type of layer")
    for type, rate in rates.items():
        _require_ratio(keys, f"compress_rates.{type}", rate)
    return dict(rates)


def _require_ratio(keys: ConfigKeys, key: str, value: Any) -> None:
    if not _is_ratio(value):
        raise keys.refusal(key, "0 (window only), 4 or 128", value)


def _is_ratio(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in RATIOS
