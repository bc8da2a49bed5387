from __future__ import annotations

import torch

from oracles.index_k_bytes import matrix, read_key, slot_of


def oracle(cache, page_table, seq_lens, total_tokens=None):
    keys, scales = [], []
    for table, length in zip(page_table.tolist(), seq_lens.tolist(), strict=True):
        for position in range(length):
            slot = slot_of(table, cache.layout.page_tokens, position, cache.slots)
            key, scale = ([0.0] * cache.layout.head_dim, 0.0) if slot is None else read_key(cache, slot)
            keys.append(key)
            scales.append(scale)
    result = {"keys": matrix(keys, len(keys), cache.layout.head_dim)}
    if cache.layout.format == "fp8":
        result["scales"] = torch.tensor(scales, dtype=torch.float32)
    return result
