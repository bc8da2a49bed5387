"""Which tokens the query rows of a prefill may attend to. Made once for a batch, used by every layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_exec.runtime.lengths import ragged_windows


@dataclass(frozen=True, slots=True)
class QueryRows:
    """The rows of a prefill, one request after the other, and where their requests' tokens are.

    Attributes:
        page_table: int32 [b, pages], the pages of each request in order.
        seq_lens: int32 [b], tokens of each request in the caches, the new ones included.
        total_tokens: the sum of `seq_lens`.
        request_of_row: int [t], the request that each row belongs to.
        starts: int32 [t], each row's first token among those of all requests, one request after the other.
        ends: int32 [t], one past its last.
    """

    page_table: torch.Tensor
    seq_lens: torch.Tensor
    total_tokens: int
    request_of_row: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor


def query_rows(
    page_table: torch.Tensor, extend_lens: torch.Tensor, seq_lens: torch.Tensor, *, rows: int, total_tokens: int
) -> QueryRows:
    """The rows of a prefill, in which some requests may have one new token. Does not wait for the device.

    Args:
        page_table: int32 [b, pages].
        extend_lens: int [b], new tokens of each request: its rows.
        seq_lens: int [b], all its tokens, the new ones included.
        rows: the sum of `extend_lens`.
        total_tokens: the sum of `seq_lens`.
    """
    starts, ends = ragged_windows(extend_lens, seq_lens, rows=rows)
    requests = torch.arange(extend_lens.shape[0], device=extend_lens.device)
    request_of_row = torch.repeat_interleave(requests, extend_lens.long(), output_size=rows)
    return QueryRows(page_table, seq_lens.to(torch.int32), total_tokens, request_of_row, starts, ends)
