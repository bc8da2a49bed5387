"""A vendor's sparse attention under this package's contract.

The contract is that of the public functions: an index that names no row means none, a row that selects nothing gives
zeros and -inf, any number of indices, heads and rows will do. A vendor's kernel leaves some of that unspecified, or
reads out of bounds. One kernel before it and one after it make up for that, without asking the device anything.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from dsa_exec.core.head_padding import pad_heads

Attend = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""The vendor's function: q [t, taken, d] and indices [t, k], a multiple of the tile, each -1 or a row that there is.

It gives out [t, taken, d_v] of q's dtype and lse f32 [t, taken], both fresh; whatever it likes for rows of -1 alone.
"""


def attend_in_parts(
    q: torch.Tensor,
    indices: torch.Tensor,
    count: int,
    attend: Attend,
    *,
    taken: int,
    tile: int,
    d_v: int,
    most_rows: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a vendor's sparse attention over all rows.

    Args:
        q: 16-bit floats [t, h, d].
        indices: int32 [t, k]; negative or from `count` on means none.
        count: how many rows there are to select from.
        attend: the vendor's function.
        taken: how many heads it is given, h at least; those that are missing are padded with zeros.
        tile: what the number of indices it is given must be a multiple of.
        d_v: channels of a value, a power of two.
        most_rows: how many rows it is given at a time.

    Returns:
        out [t, h, d_v] and lse f32 [t, h], as `sparse_mla_prefill` and `sparse_mla_decode` say.
    """
    rows, heads, _ = q.shape
    if 0 in (rows, heads, count, indices.shape[1]):
        return q.new_zeros(rows, heads, d_v), q.new_full((rows, heads), -torch.inf, dtype=torch.float32)
    from dsa_exec.core.kernels.vendor_attention import clear_rows, copy_rows, name_rows

    with torch.cuda.device_of(q):
        named, selects = name_rows(indices, count, tile)
        if rows <= most_rows and heads == taken:
            out, lse = attend(pad_heads(q, taken), named)
            clear_rows(out, lse, selects)
            return out, lse
        # A view of the padded result would keep all of it for as long as the caller keeps the view.
        out, lse = q.new_empty(rows, heads, d_v), q.new_empty(rows, heads, dtype=torch.float32)
        for first in range(0, rows, most_rows):
            part = slice(first, first + most_rows)
            copy_rows(*attend(pad_heads(q[part], taken), named[part]), selects[part], out[part], lse[part])
        return out, lse
