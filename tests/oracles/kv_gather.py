from __future__ import annotations

import torch

from oracles.index_k_bytes import slot_of
from oracles.mla_bytes import read_token


def oracle(cache, page_table, seq_lens, total_tokens=None, dtype=torch.bfloat16):
    tokens = []
    for table, length in zip(page_table.tolist(), seq_lens.tolist(), strict=True):
        for position in range(length):
            slot = slot_of(table, cache.layout.page_tokens, position, cache.slots)
            tokens.append([0.0] * cache.layout.width if slot is None else read_token(cache, slot))
    return {"tokens": torch.tensor(tokens, dtype=torch.float32).reshape(len(tokens), cache.layout.width).to(dtype)}
