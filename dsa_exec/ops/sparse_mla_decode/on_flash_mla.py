"""`sparse_mla_decode` with flash_mla's sparse decode kernel: bf16 queries of up to 128 heads over the FP8 cache."""

from __future__ import annotations

from typing import Any

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
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.vendor_attention import attend_in_parts
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.dispatch.registry import backend
from dsa_exec.ops.sparse_mla_decode import Call
from dsa_exec.ops.sparse_mla_decode.measured import BESIDE_FLASH_MLA
from dsa_exec.ops.sparse_mla_decode.schedules import with_schedule

PAGE_TOKENS = 64
"""Tokens of a page as flash_mla is shown the cache. Slots are physical, so that the cache's own pages do not matter."""

ROW_HEADS = 2**16
"""Heads of rows that are decoded at a time. flash_mla allocates 2 KiB of f32 partial sums for each, 128 MiB in all,
with 32-bit offsets; and its scheduler keeps 16 bytes of a row in shared memory, which has room for 14000 of them."""


def _taken(call: Call, hw: Capabilities) -> int:
    return heads_taken(call.q.shape[1], hw, prefill=False)


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    hw = capabilities(call.q.device)
    library, taken = hw.library("flash_mla"), _taken(call, hw)
    options = flash_mla_options(library, "flash_mla_with_kvcache")
    if call.attn_sink is not None:
        options["attn_sink"] = pad_heads(call.attn_sink[None, :, None], taken).view(taken)
    scale = float(call.sm_scale)
    cache = call.cache.data.view(E4M3).view(-1, PAGE_TOKENS, 1, call.cache.layout.token_bytes)

    def attend(q: torch.Tensor, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        def with_it(schedule: Any) -> Any:
            # After the schedule: num_splits, which must be None, the scale, causal, is_fp8_kvcache, the indices.
            return library.module.flash_mla_with_kvcache(
                q[:, None], cache, None, None, VALUES, schedule, None, scale, False, True, slots[:, None],
                **options,
            )  # fmt: skip

        shapes = (*q.shape, slots.shape[1], PAGE_TOKENS)
        out, lse = with_schedule(library.module, q.device, shapes, with_it)
        return out[:, 0], lse[:, :, 0]

    return attend_in_parts(
        call.q,
        call.named_slots,
        call.cache.slots,
        attend,
        taken=taken,
        tile=TILE,
        d_v=VALUES,
        most_rows=ROW_HEADS // taken,
    )


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_flash_mla(hw) or refuses_queries(call.q)) is not None:
        return sentence
    layout = call.cache.layout
    if layout.format != "fp8":
        return f"the cache has format {layout.format}, flash_mla decodes fp8; no cache is quantised on the way"
    if (layout.width, layout.latent_dim) != (WIDTH, VALUES):
        came = f"tokens of {layout.latent_dim} and {layout.rope_dim} channels"
        return f"{came}, flash_mla takes {VALUES} and {WIDTH - VALUES}"
    if call.cache.slots % PAGE_TOKENS:
        return f"the cache has {call.cache.slots} slots, flash_mla takes pages of {PAGE_TOKENS}"
    if call.cache.data.data_ptr() % 16:
        return "the cache does not begin at a multiple of 16 bytes"
    return refuses_gradients(call)


def _declines(call: Call, hw: Capabilities) -> str | None:
    if hw.arch not in ARCHS:
        return f"for {', '.join(ARCHS)}, this is {hw.arch}"
    if hw.arch != "sm90":
        return f"{hw.arch}: some builds take the cache's scales for powers of two there, and this was run on sm90 alone"
    if backend("sparse_mla_decode", "gluon").refuses(call, hw) is None:
        return BESIDE_FLASH_MLA.declines(call.q.shape[1], call.q.shape[0])
    return None


def _adapts(call: Call, hw: Capabilities) -> str | None:
    return says_changes(call.q, _taken(call, hw))


BACKEND = Backend("flash_mla", _run, _refuses, _declines, rank=5, adapts=_adapts)
