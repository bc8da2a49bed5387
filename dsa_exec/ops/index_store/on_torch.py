"""The specification of `index_store`."""

from __future__ import annotations

from dsa_exec.core.fnuz import without_negative_zeros
from dsa_exec.core.masked_writes import MaskedWrites
from dsa_exec.core.numerics import hadamard, quantise_e4m3
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.layouts.index_k import TILE
from dsa_exec.layouts.views import index_key_view, index_scale_view
from dsa_exec.ops.index_store import Call


def _run(call: Call) -> None:
    layout, data, keys = call.cache.layout, call.cache.data, call.keys
    if keys.shape[0] == 0:
        return
    writes = MaskedWrites.to(call.slots, call.cache.slots)
    page, token = writes.slots // layout.page_tokens, writes.slots % layout.page_tokens
    if layout.format == "model":
        writes.write(data, (page, token), keys.to(data.dtype))
        return
    if layout.hadamard:
        keys = hadamard(keys)
    quantised, scales = quantise_e4m3(keys, layout.head_dim, pow2=layout.pow2_scale)
    writes.write(index_scale_view(data, layout), (page, token), scales[:, 0])
    # Assigned as bytes: not every device can index e4m3.
    bytes_view, key_bytes = index_key_view(data, layout).view(data.dtype), quantised.view(data.dtype)
    if layout.unsigned_zero:
        key_bytes = without_negative_zeros(key_bytes)
    if layout.order == "plain":
        writes.write(bytes_view, (page, token), key_bytes)
    else:
        writes.write(bytes_view, (page, token // TILE, token % TILE), key_bytes.unflatten(1, (-1, TILE)))


BACKEND = Backend("torch", _run, rank=LAST)
