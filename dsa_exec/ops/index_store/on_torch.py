"""The specification of `index_store`."""

from __future__ import annotations

from dsa_exec.core.numerics import hadamard, quantise_e4m3
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.layouts.index_k import TILE
from dsa_exec.layouts.views import index_key_view, index_scale_view
from dsa_exec.ops.index_store import Call


def _run(call: Call) -> None:
    layout, data = call.cache.layout, call.cache.data
    slots = call.slots.long()
    kept = (slots >= 0) & (slots < call.cache.slots)
    slots, keys = slots[kept], call.keys[kept]
    page, token = slots // layout.page_tokens, slots % layout.page_tokens
    if layout.format == "model":
        data[page, token] = keys.to(data.dtype)
        return
    if layout.hadamard:
        keys = hadamard(keys)
    quantised, scales = quantise_e4m3(keys, layout.head_dim, pow2=layout.pow2_scale)
    index_scale_view(data, layout)[page, token] = scales[:, 0]
    view = index_key_view(data, layout)
    # Assigned as bytes: not every device can index e4m3.
    bytes_view, key_bytes = view.view(data.dtype), quantised.view(data.dtype)
    if layout.order == "plain":
        bytes_view[page, token] = key_bytes
    else:
        bytes_view[page, token // TILE, token % TILE] = key_bytes.unflatten(1, (-1, TILE))


BACKEND = Backend("torch", _run, rank=LAST)
