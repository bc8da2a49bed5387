"""The best keys of a part of them, told so that those of other parts can be compared with them."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import MemoryReading
from dsa_exec.layouts.key_split import KeyPart
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys, Selection, select_now


def index_candidates(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: GatheredKeys | PagedKeys,
    k: int,
    key_part: KeyPart,
    *,
    memory: MemoryReading | None = None,
) -> Selection:
    """`index_select` of a rank that holds one part of every request's keys.

    A key's scores are the same to the bit, however many keys stand beside it: `topk_merge` of all parts' candidates
    gives what one rank with all keys selects.

    Args:
        q: the queries, e4m3 or float [t, h, d] with gathered keys, [b, n, h, d] with paged keys.
        head_weights: f32 [t, h] (t = b * n), with the queries' scales folded in.
        k: how many to select, 1 to 4096.
        memory: the device's memory now, as for `index_select`.
        keys: the part's own: windows and lengths count these alone (`KeySplit.count_in`). A row's window begins where
            its request begins.
        key_part: which part they are.

    Returns:
        The selection, whose indices are int32 [t, 2, k]: the bits of the scores, f32, then positions in the whole
        request, ascending and -1 padded (`topk_candidates`).

    Raises:
        ArgumentError, OutOfMemory, UnsupportedCall: as `index_select`.
    """
    return select_now(q, head_weights, keys, k, memory, key_part=key_part)
