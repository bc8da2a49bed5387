"""Where the bytes of an index-K cache are, straight from the description of the layout."""

from __future__ import annotations

import torch

from oracles.number_formats import decode, f32_value


def key_address(layout, slot: int, channel: int) -> int:
    page, token = slot // layout.page_tokens, slot % layout.page_tokens
    base = page * layout.page_tokens * 132
    if layout.order == "preshuffled":
        tile_row = (token // 16) * (16 * 128)
        return base + tile_row + (channel // 16) * 256 + (token % 16) * 16 + channel % 16
    return base + token * 128 + channel


def scale_address(layout, slot: int) -> int:
    page, token = slot // layout.page_tokens, slot % layout.page_tokens
    return page * layout.page_tokens * 132 + layout.page_tokens * 128 + token * 4


def read_key(cache, slot: int) -> tuple[list[float], float]:
    """The key in a slot and its scale (1 where nothing is quantised)."""
    layout = cache.layout
    if layout.format == "model":
        page, token = slot // layout.page_tokens, slot % layout.page_tokens
        return cache.data[page, token].tolist(), 1.0
    raw = bytes(cache.data.cpu().flatten().tolist())
    channels = [decode(raw[key_address(layout, slot, channel)]) for channel in range(layout.head_dim)]
    at = scale_address(layout, slot)
    return channels, f32_value(raw[at : at + 4])


def slot_of(table: list[int], page_tokens: int, position: int, slots: int) -> int | None:
    """The slot of a position of a request, or None if there is none."""
    if position // page_tokens >= len(table):
        return None
    slot = table[position // page_tokens] * page_tokens + position % page_tokens
    return slot if 0 <= slot < slots else None


def score(query: list[list[float]], weights: list[float], key: list[float], scale: float) -> float:
    """One query row against one key."""
    total = 0.0
    for head, weight in zip(query, weights, strict=True):
        dot = sum(left * right for left, right in zip(head, key, strict=True))
        total += weight * max(dot, 0.0)
    return scale * total


def matrix(rows: list[list[float]], height: int, width: int) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(height, width)
