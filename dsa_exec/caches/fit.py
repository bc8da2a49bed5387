"""The checks that a cache has room, and that its tensor is what its layout says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import LayoutError


def require_room(op: str, slots: int, page_tokens: int | None) -> None:
    """Check what a cache is to be allocated for.

    Args:
        op: who asks, for the error.
        slots: how many tokens.
        page_tokens: tokens a page; None where they are yet to be decided.

    Raises:
        RangeError: one of them is no integer or below 1.
    """
    args = Arguments(op)
    args.number(slots, "slots", low=1)
    if page_tokens is not None:
        args.number(page_tokens, "page_tokens", low=1)


def require_fit(
    what: str,
    data: torch.Tensor,
    row: Sequence[int],
    dtypes: Sequence[torch.dtype],
    *,
    multiple: int = 1,
    element_bytes: int | None = None,
) -> None:
    """Check a cache's tensor.

    Args:
        what: the cache, for the error.
        data: its tensor.
        row: the shape of one row.
        dtypes: the dtypes it may have.
        multiple: how many rows belong together; there must be at least so many.
        element_bytes: what the layout says of a channel, where the dtype is the model's.

    Raises:
        LayoutError: another shape or dtype; not contiguous, so that a view would be a copy and writes would be lost.
    """
    rows = data.shape[0] if data.ndim else 0
    fits = tuple(data.shape[1:]) == tuple(row) and rows > 0 and rows % multiple == 0
    if not fits or data.dtype not in dtypes or not data.is_contiguous():
        got = f"{data.dtype} {list(data.shape)} with strides {list(data.stride())}"
        shape = ", ".join(map(str, ("n" if multiple == 1 else f"n * {multiple}", *row)))
        raise LayoutError(what, "tensor", got, f"contiguous [{shape}] of {' or '.join(map(str, dtypes))}, n at least 1")
    if element_bytes is not None and element_bytes != data.dtype.itemsize:
        raise LayoutError(what, "element_bytes", element_bytes, f"{data.dtype.itemsize}, the bytes of {data.dtype}")
