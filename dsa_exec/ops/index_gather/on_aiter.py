"""`index_gather` by aiter: e4m3 keys and scales out of plain or preshuffled pages.

aiter checks neither pages nor lengths, and a token that no request has is read from wherever. It is given pages that
there are, and a last request that has the tokens which no other has; what such tokens got is zeroed after it.
"""

from __future__ import annotations

import torch

from dsa_exec.caches.addresses import refuses_addresses
from dsa_exec.core.aiter_functions import GATHER, RANK, READS, aiter_function, declines_aiter, refuses_aiter
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.layouts.index_k import SCALE_BYTES
from dsa_exec.layouts.paging import pages_for
from dsa_exec.layouts.views import request_slots
from dsa_exec.ops.index_gather import Call

MOST_TOKENS = 2**31 - 2**10
"""Tokens are numbered in int32, with room for the last block beyond the end."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    layout = call.cache.layout
    parameters = ("preshuffle",) if layout.order == "preshuffled" else ()
    sentence = refuses_aiter(hw, GATHER, *parameters) or refuses_addresses(call.cache) or refuses_gradients(call)
    if sentence is not None:
        return sentence
    if layout.format != "fp8":
        return "the cache is in the model format, aiter gathers e4m3 keys with scales"
    if call.total_tokens > MOST_TOKENS:
        return f"{call.total_tokens} tokens, aiter numbers up to {MOST_TOKENS} in int32"
    return None


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_aiter(hw) or "its pages and lengths are made safe in passes of their own, triton's on the way"


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor | None]:
    data, layout, count = call.cache.data, call.cache.layout, call.total_tokens
    keys = torch.empty(count, layout.head_dim, dtype=torch.uint8, device=data.device)
    scales = torch.empty(count, SCALE_BYTES, dtype=torch.uint8, device=data.device)
    if call.page_table.numel() == 0:
        keys.zero_()
        scales.zero_()
    elif count:
        slots = request_slots(call.page_table, call.seq_lens, layout.page_tokens, count, call.cache.slots)
        pages = data.view(-1, layout.page_tokens, layout.token_bytes)
        more = {"preshuffle": True} if layout.order == "preshuffled" else {}
        gather = aiter_function(capabilities(data.device), GATHER)
        with torch.cuda.device_of(data):
            gather(pages, keys, scales, _safe_table(call), _safe_ends(call), **more)
        unknown = (slots < 0)[:, None]
        keys.masked_fill_(unknown, 0)
        scales.masked_fill_(unknown, 0)
    return keys.view(E4M3), scales.view(torch.float32)[:, 0]


def _safe_ends(call: Call) -> torch.Tensor:
    """Where each request's tokens end, from 0 on: int32 [b + 2], the last request having what no other has."""
    ends = call.seq_lens.long().clamp(min=0).cumsum(0).clamp(max=call.total_tokens)
    return torch.cat([ends.new_zeros(1), ends, ends.new_full((1,), call.total_tokens)]).int()


def _safe_table(call: Call) -> torch.Tensor:
    """Pages that the cache has: int32 [b + 1, pages], with zeros behind it in memory.

    A request that is longer than its row of the table goes on in the rows behind it, which are read as one run.
    """
    requests, width = call.page_table.shape
    beyond = width + pages_for(call.total_tokens, call.cache.layout.page_tokens)
    table = call.page_table.new_zeros(requests * width + beyond)
    table[: requests * width].view(requests, width).copy_(call.page_table.clamp(0, call.cache.data.shape[0] - 1))
    return table[: (requests + 1) * width].view(requests + 1, width)


BACKEND = Backend("aiter", _run, _refuses, _declines, rank=RANK, reads=READS)
