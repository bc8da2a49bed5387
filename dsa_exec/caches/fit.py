"""The check that a tensor is what a layout says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dsa_exec.core.errors import LayoutError


def require_fit(
    what: str, data: torch.Tensor, row: Sequence[int], dtypes: Sequence[torch.dtype], multiple: int
) -> None:
    """Check a cache's tensor.

    Args:
        what: the cache, for the error.
        data: its tensor.
        row: the shape of one row.
        dtypes: the dtypes it may have.
        multiple: how many rows belong together; there must be at least so many.

    Raises:
        LayoutError: another shape or dtype; not contiguous, so that a view would be a copy and writes would be lost.
    """
    rows = data.shape[0] if data.ndim else 0
    fits = tuple(data.shape[1:]) == tuple(row) and rows > 0 and rows % multiple == 0
    if not fits or data.dtype not in dtypes or not data.is_contiguous():
        got = f"{data.dtype} {list(data.shape)} with strides {list(data.stride())}"
        shape = ", ".join(map(str, ("n" if multiple == 1 else f"n * {multiple}", *row)))
        raise LayoutError(what, "tensor", got, f"contiguous [{shape}] of {' or '.join(map(str, dtypes))}, n at least 1")
