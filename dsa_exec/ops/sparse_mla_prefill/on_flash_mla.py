"""`sparse_mla_prefill` with flash_mla's sparse prefill kernel: bf16, 576 channels, up to 128 heads."""

from __future__ import annotations

import torch

from dsa_exec.core.flash_mla import (
    ARCHS,
    TILE,
    VALUES,
    WIDTH,
    flash_mla_options,
    heads_taken,
    refuses_queries,
    refuses_without_flash_mla,
    says_changes,
)
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.head_padding import pad_heads
from dsa_exec.core.vendor_attention import attend_in_parts
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.dispatch.registry import backend
from dsa_exec.ops.sparse_mla_prefill import Call
from dsa_exec.ops.sparse_mla_prefill.measured import BESIDE_FLASH_MLA

PADDED_ROWS = 2**17
"""Heads of rows that are padded at a time: 144 MiB. A call without padding is not cut."""

COPIED = 8
"""Elements of one copy of 16 bytes: rows of kv begin at multiples of that."""


def _taken(call: Call, hw: Capabilities) -> int:
    return heads_taken(call.q.shape[1], hw, prefill=True)


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    hw = capabilities(call.q.device)
    library, taken = hw.library("flash_mla"), _taken(call, hw)
    options = flash_mla_options(library, "flash_mla_sparse_fwd")
    if call.attn_sink is not None:
        options["attn_sink"] = pad_heads(call.attn_sink[None, :, None], taken).view(taken)
    kv = call.kv[:, None]

    def attend(q: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, _, lse, *_ = library.module.flash_mla_sparse_fwd(
            q, kv, indices[:, None], float(call.sm_scale), VALUES, **options
        )
        return out, lse

    rows, heads, _ = call.q.shape
    most_rows = max(rows, 1) if heads == taken else PADDED_ROWS // taken
    return attend_in_parts(
        call.q, call.indices, kv.shape[0], attend, taken=taken, tile=TILE, d_v=VALUES, most_rows=most_rows
    )


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_flash_mla(hw) or refuses_queries(call.q)) is not None:
        return sentence
    if (call.q.shape[2], call.d_v) != (WIDTH, VALUES):
        return f"rows of {call.q.shape[2]} channels, {call.d_v} of them values: flash_mla takes {WIDTH} and {VALUES}"
    if (call.kv.shape[0] > 1 and call.kv.stride(0) % COPIED) or call.kv.data_ptr() % (2 * COPIED):
        return f"kv has strides {list(call.kv.stride())}: its rows do not begin at multiples of 16 bytes"
    library = hw.library("flash_mla")
    if call.attn_sink is not None and not library.takes("flash_mla_sparse_fwd", "attn_sink"):
        return f"attn_sink is given, and flash_mla_sparse_fwd of {library} has no attn_sink"
    return refuses_gradients(call)


def _declines(call: Call, hw: Capabilities) -> str | None:
    if hw.arch not in ARCHS:
        return f"for {', '.join(ARCHS)}, this is {hw.arch}"
    if backend("sparse_mla_prefill", "gluon").refuses(call, hw) is None:
        return BESIDE_FLASH_MLA.declines(call.q.shape[1], call.q.shape[0])
    return None


def _adapts(call: Call, hw: Capabilities) -> str | None:
    return says_changes(call.q, _taken(call, hw))


BACKEND = Backend("flash_mla", _run, _refuses, _declines, rank=5, adapts=_adapts)
