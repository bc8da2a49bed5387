"""What pools take, counted page by page from published sizes: imports nothing of the planner."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

V4_TOKEN = 448 + 2 * 64 + 8
INDEX_KEY = 128 + 4


def padded(size: int) -> int:
    """Rounded up to a multiple of 576."""
    while size % 576:
        size += 1
    return size


def mla_bytes(token_bytes: int, layers: int, indexers: int, tokens: int, page: int) -> int:
    """KV of all layers and index keys of those with an indexer, with one page more in each."""
    pages = tokens // page + 1
    return pages * page * token_bytes * layers + pages * page * INDEX_KEY * indexers


def swa_of(tokens: int, ratio: Fraction, page: int) -> int:
    """Tokens of the sliding window: a share of all, in whole pages."""
    return int(tokens * ratio) // page * page


def pages_of_a_run(tokens: int, page: int) -> int:
    """Pages that so many tokens in a row lie in, wherever in a page they begin."""
    return max(len({(start + token) // page for token in range(tokens)}) for start in range(page))


def v4_bytes(
    ratios: Sequence[int], tokens: int, *, page: int, ratio: Fraction, speculative: bool, requests: int
) -> int:
    """All pools of layers with these ratios: f32 states, fp8 KV and keys, windows of 128."""
    swa_pages = swa_of(tokens, ratio, page) // 128 + 1
    pages = tokens // page + 1
    ring4, ring128 = (16, 256) if speculative else (8, 128)
    rows = (requests + 1) * ring128 + ring128 + 1
    while rows % 128:
        rows += 1
    total = 0
    for each in ratios:
        total += swa_pages * padded(128 * V4_TOKEN)
        if each == 4:
            total += pages * padded(page // 4 * V4_TOKEN)
            total += pages * (page // 4) * INDEX_KEY
            total += swa_pages * ring4 * 4 * 512 * 4
            total += swa_pages * ring4 * 4 * 128 * 4
        if each == 128:
            total += pages * padded(page // 128 * V4_TOKEN)
            total += rows * 2 * 512 * 4
    return total


def published_bytes_per_token(ratios: Sequence[int], ratio: Fraction, ring4: int) -> Fraction:
    """The published formula for a token of context: no padding, no extra page, no state of requests."""
    layers, c4, c128 = len(ratios), list(ratios).count(4), list(ratios).count(128)
    kv = ratio * V4_TOKEN * layers + Fraction(V4_TOKEN * c4, 4) + Fraction(V4_TOKEN * c128, 128)
    keys = Fraction(INDEX_KEY * c4, 4)
    state = ratio * Fraction(ring4, 128) * (4 * 512 * 4 + 4 * 128 * 4) * c4
    return kv + keys + state
