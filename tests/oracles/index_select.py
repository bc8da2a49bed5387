from __future__ import annotations

import torch

from oracles import mqa_logits, paged_mqa_logits, topk
from oracles.index_k_bytes import slot_of


def oracle(q, head_weights, keys, k, memory=None):
    if hasattr(keys, "starts"):
        logits = mqa_logits.oracle(q, keys.keys, keys.scales, head_weights, keys.starts, keys.ends)["logits"]
        picked = topk.oracle(logits, keys.ends - keys.starts, k, row_starts=keys.starts)
        return {"indices": picked["positions"]}
    width = keys.page_table.shape[1] * keys.cache.layout.page_tokens
    logits = paged_mqa_logits.oracle(q, keys.cache, head_weights, keys.context_lens, keys.page_table, width)["logits"]
    positions = topk.oracle(logits, keys.context_lens.flatten(), k)["positions"].tolist()
    next_n, page_tokens = q.shape[1], keys.cache.layout.page_tokens
    for row, picked in enumerate(positions):
        table = keys.page_table[row // next_n].tolist()
        slots = [None if at < 0 else slot_of(table, page_tokens, at, keys.cache.slots) for at in picked]
        positions[row] = [-1 if slot is None else slot for slot in slots]
    return {"indices": torch.tensor(positions, dtype=torch.int32)}
