"""What aiter's two scoring kernels have in common: e4m3 operands, head counts, and what gfx942 makes of them."""

from __future__ import annotations

import torch

from dsa_exec.core.fnuz import PRODUCT_FACTOR, halves_as_fnuz, reads_fnuz
from dsa_exec.core.hardware import MOST_BYTES_OF_32_BITS, Capabilities
from dsa_exec.core.head_padding import pad_heads, says_padding
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.preshuffle import ARCHITECTURES

HEADS = (32, 64)
"""How many heads aiter's own tests give its kernels. The paged one shares heads out in groups of 32."""

MOST_BYTES = MOST_BYTES_OF_32_BITS
"""A tensor whose rows are addressed with 32 bits must not be larger: stores beyond are lost, or abort the compiler."""


def refuses_queries(q: torch.Tensor, hw: Capabilities) -> str | None:
    """Why aiter's kernels cannot score queries on a device; None if they can.

    Args:
        q: [..., h, d].
        hw: the device.
    """
    if hw.arch not in ARCHITECTURES:
        return f"arch={hw.arch}: aiter scores on {', '.join(ARCHITECTURES)}"
    if q.dtype is not E4M3:
        return f"q is {str(q.dtype).removeprefix('torch.')}, aiter takes float8_e4m3fn"
    heads, channels = q.shape[-2:]
    if not 1 <= heads <= HEADS[-1]:
        return f"{heads} heads, aiter's kernels are known to take {HEADS[0]} or {HEADS[1]} (fewer are padded)"
    if channels < 32 or channels & (channels - 1):
        return f"{channels} channels, aiter takes powers of two from 32 on"
    return None


def adapts_queries(q: torch.Tensor, hw: Capabilities) -> str | None:
    """What is changed about queries, in words; None if nothing is."""
    changes = [says_padding(q.shape[-2], _taken(q.shape[-2]))]
    if reads_fnuz(hw.arch):
        changes.append("e4m3 numbers are given as e4m3fnuz of half the value")
    return "; ".join(filter(None, changes)) or None


def operands(q: torch.Tensor, head_weights: torch.Tensor, hw: Capabilities) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and head weights as aiter's kernels take them, contiguous.

    Args:
        q: e4m3 [t, h, d].
        head_weights: f32 [t, h].
        hw: the device.

    Returns:
        q [t, H, d] and head_weights [t, H] with H of `HEADS`. On gfx942 queries are e4m3fnuz of half the value, and
        weights make up for that and for keys that are read at half their value too.
    """
    taken = _taken(q.shape[1])
    q, weights = pad_heads(q, taken), pad_heads(head_weights[:, :, None], taken)[:, :, 0]
    if reads_fnuz(hw.arch):
        return halves_as_fnuz(q), weights * PRODUCT_FACTOR
    return q, weights


def operand_row_bytes(q: torch.Tensor, hw: Capabilities) -> int:
    """What `operands` takes at most for a row of queries [..., h, d]; padded ones lie in room for a power of two."""
    given, channels = q.shape[-2:]
    taken = _taken(given)
    padded = taken * (channels + 4) * (1 if taken == given else 2)
    return padded + (taken * (2 * channels + 4) if reads_fnuz(hw.arch) else 0)


def _taken(heads: int) -> int:
    return next(count for count in HEADS if count >= heads)
