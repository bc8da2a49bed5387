from __future__ import annotations

from oracles.attention import attend
from oracles.mla_bytes import read_token


def oracle(q, cache, slots, sm_scale, attn_sink=None, topk_length=None):
    if topk_length is not None:
        slots = slots.clone()
        for row, length in enumerate(topk_length.tolist()):
            slots[row, max(length, 0) :] = -1
    picked = [[read_token(cache, slot) for slot in row if 0 <= slot < cache.slots] for row in slots.tolist()]
    return attend(q, picked, cache.layout.latent_dim, sm_scale, attn_sink)
