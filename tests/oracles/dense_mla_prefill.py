from __future__ import annotations

from oracles.attention import attend


def oracle(q, kv, starts, ends, sm_scale, d_v=512, attn_sink=None):
    windows = zip(starts.tolist(), ends.tolist(), strict=True)
    picked = [[kv[at].double().tolist() for at in range(start, end)] for start, end in windows]
    return attend(q, picked, d_v, sm_scale, attn_sink)
