"""What a cache says when its requests cannot go on, or are not there yet."""

from __future__ import annotations

UNFINISHED = (
    "an earlier pass over this cache did not reach its last layer, so that layers have different tokens: reset() the "
    "cache or make another (and if the model was cut, set config.num_hidden_layers)"
)
NO_PAGES = "a cache that grows has no pages before its first pass: run that, or give DsaCache.for_model max_tokens"
OVERFLOW = "a compiled step has more tokens than the cache has room for (max_tokens)"
