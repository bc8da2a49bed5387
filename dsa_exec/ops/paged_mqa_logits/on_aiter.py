"""`paged_mqa_logits` by aiter: e4m3 keys in plain pages of 1 token or in preshuffled ones.

aiter counts a request's rows back from its length: row t of n sees length - n + t + 1 keys. Lengths here are each row's
own, and nobody knows without reading them whether they follow each other; so every row is given as a request of one.
It checks no page: it is given pages that there are, and keys on the others get -inf after it.
"""

from __future__ import annotations

import torch

from dsa_config import settings
from dsa_exec.caches.addresses import refuses_addresses
from dsa_exec.core.aiter_functions import PAGED_MQA_LOGITS, RANK, READS, aiter_function, declines_aiter, refuses_aiter
from dsa_exec.core.aiter_releases import own_demands
from dsa_exec.core.aiter_scoring import MOST_BYTES, adapts_queries, operand_row_bytes, operands, refuses_queries
from dsa_exec.core.fnuz import reads_fnuz
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.preshuffle import refuses_preshuffle
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.row_chunks import row_chunks, rows_per_chunk, rows_that_fit
from dsa_exec.ops.paged_mqa_logits import Call

CHUNK_KEYS = 256
"""Keys of a program: pages divide them, or are multiples."""

SCRATCH_BYTES = 64 * 2**20
"""What copies of page tables may take; a row takes what it takes."""

TABLE_BYTES = 8
"""What a page of a row's own table takes."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    sentence = refuses_aiter(hw, PAGED_MQA_LOGITS, "Preshuffle", "KVBlockSize") or refuses_gradients(call)
    sentence = sentence or refuses_queries(call.q, hw) or _refuses_cache(call, hw)
    if sentence is None and call.max_context_len * 4 > MOST_BYTES:
        return (
            f"max_context_len={call.max_context_len}: a row has more than the {MOST_BYTES} bytes that aiter addresses"
        )
    return sentence


def _refuses_cache(call: Call, hw: Capabilities) -> str | None:
    layout, data = call.cache.layout, call.cache.data
    if (sentence := refuses_addresses(call.cache)) is not None:
        return sentence
    if layout.order == "plain" and layout.page_tokens != 1:
        return f"plain pages of {layout.page_tokens} tokens, aiter takes plain pages of 1 and preshuffled ones"
    if CHUNK_KEYS % layout.page_tokens and layout.page_tokens % CHUNK_KEYS:
        return f"pages of {layout.page_tokens} tokens, aiter takes divisors and multiples of {CHUNK_KEYS}"
    if data.nbytes > MOST_BYTES:
        return f"the cache has {data.nbytes} bytes, aiter addresses up to {MOST_BYTES} with 32 bits"
    if reads_fnuz(hw.arch) and not layout.unsigned_zero:
        return f"arch={hw.arch}: -0 is NaN there, and this cache may hold it (one that is allocated there does not)"
    return _refuses_surroundings(layout.order, hw)


def _refuses_surroundings(order: str, hw: Capabilities) -> str | None:
    ahead_of_time = settings.aiter_enable_aot_gluon_pa_mqa_logits
    if order == "preshuffled":
        # Whether such pages are wanted was asked when the cache was allocated.
        failed = refuses_preshuffle(
            hw, use_aiter=True, hip_disable_preshuffle=False, aiter_enable_aot_gluon_pa_mqa_logits=ahead_of_time
        )
        return None if failed is None else str(failed)
    if ahead_of_time:
        found, wanted, holds = own_demands(hw.library("aiter").version, hw, ahead_of_time=True)
        return None if holds else f"{found}; wanted {wanted}"
    return None


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_aiter(hw)


def _adapts(call: Call, hw: Capabilities) -> str | None:
    n = call.q.shape[1]
    rows = f"{n} rows a request as requests of their own" if n > 1 else None
    return "; ".join(filter(None, (rows, adapts_queries(call.q, hw)))) or None


def _run(call: Call) -> torch.Tensor:
    requests, n, heads, channels = call.q.shape
    width, rows = call.max_context_len, requests * n
    out = call.q.new_empty(rows, width, dtype=torch.float32) if call.out is None else call.out
    out.fill_(-torch.inf)  # aiter counts on it
    if out.numel() == 0 or call.page_table.shape[1] == 0:
        return out
    from dsa_exec.ops.paged_mqa_logits.kernels.settle import settle

    layout, data = call.cache.layout, call.cache.data
    hw = capabilities(data.device)
    score = aiter_function(hw, PAGED_MQA_LOGITS)
    kind = {"Preshuffle": layout.order == "preshuffled", "KVBlockSize": layout.page_tokens, "ChunkK": CHUNK_KEYS}
    keys = data.view(-1, layout.page_tokens, 1, layout.token_bytes)
    pages = call.page_table.shape[1]
    lens = call.context_lens.flatten().clamp(0, min(width, pages * layout.page_tokens))
    q = call.q.reshape(rows, heads, channels)
    request = torch.arange(rows, device=lens.device) // n
    # Of older releases the logits of one call are addressed with 32 bits.
    addressed = rows_per_chunk(rows, max(out.stride(0), width) * 4, MOST_BYTES)
    at_once = min(rows_per_chunk(rows, pages * TABLE_BYTES, SCRATCH_BYTES), addressed)
    with torch.cuda.device_of(call.q):
        for part in row_chunks(rows, at_once):
            queries, weights = operands(q[part], call.head_weights[part], hw)
            table = call.page_table[request[part]].clamp_(0, data.shape[0] - 1)
            score(queries[:, None], keys, weights, out[part], lens[part], table, width, **kind)
        return settle(call, out, None)


def _footprint(call: Call, hw: Capabilities) -> Footprint:
    table = call.page_table.shape[1] * TABLE_BYTES
    at_once = rows_that_fit(table, SCRATCH_BYTES)
    numbers = 3 * 8  # of a row: its length and its request
    return Footprint(row_bytes=numbers, streamed=((table + operand_row_bytes(call.q, hw), at_once),))


BACKEND = Backend(
    "aiter",
    _run,
    _refuses,
    _declines,
    rank=RANK,
    adapts=_adapts,
    reads=(*READS, "aiter_enable_aot_gluon_pa_mqa_logits"),
    footprint=_footprint,
)
