"""What the kernels for Hopper that score gathered keys take: e4m3, 128 channels, the usual head counts."""

from __future__ import annotations

import torch

from dsa_exec.core.numerics import E4M3

CHANNELS = 128
HEADS = (32, 64)
COPY_BYTES = 16
"""The copy engine takes addresses and row strides that are multiples of this."""

MOST_KEYS = 2**31 - 2**14
"""Keys are numbered in int32, with room for the last chunk beyond the end."""


def refuses_queries_and_keys(q: torch.Tensor, keys: torch.Tensor) -> str | None:
    """Why these kernels cannot score the keys; None if they can.

    Args:
        q: [t, h, d].
        keys: [s, d], of the same dtype, channels side by side.
    """
    _, heads, channels = q.shape
    if q.dtype is not E4M3:
        return f"q is {str(q.dtype).removeprefix('torch.')}, this kernel takes float8_e4m3fn"
    if heads not in HEADS or channels != CHANNELS:
        return f"{heads} heads of {channels} channels, this kernel takes 32 or 64 heads of {CHANNELS}"
    if keys.shape[0] > MOST_KEYS:
        return f"{keys.shape[0]} keys, this kernel numbers up to {MOST_KEYS} in int32"
    if not q.is_contiguous():
        return f"q has strides {list(q.stride())}, this kernel takes a contiguous one"
    if keys.stride(0) < CHANNELS or keys.stride(0) % COPY_BYTES:
        return f"keys have rows {keys.stride(0)} bytes apart, the copy engine takes multiples of {COPY_BYTES}"
    for name, tensor in (("q", q), ("keys", keys)):
        if past := tensor.data_ptr() % COPY_BYTES:
            return f"{name} begins {past} bytes past a multiple of {COPY_BYTES}, the copy engine takes multiples"
    return None
