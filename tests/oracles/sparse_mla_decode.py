from __future__ import annotations

from oracles.attention import attend
from oracles.mla_bytes import read_token


def oracle(q, cache, slots, sm_scale, attn_sink=None):
    picked = [[read_token(cache, slot) for slot in row if 0 <= slot < cache.slots] for row in slots.tolist()]
    return attend(q, picked, cache.layout.latent_dim, sm_scale, attn_sink)
