"""Which keys each row sees."""

from __future__ import annotations

import torch

from dsa_exec.runtime.lengths import cache_lens, expanded_lens, ragged_windows


def lens(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def test_the_published_ragged_windows():
    """New tokens [3, 2] of requests of [10, 4] tokens."""
    starts, ends = ragged_windows(lens(3, 2), lens(10, 4))
    assert starts.tolist() == [0, 0, 0, 10, 10]
    assert ends.tolist() == [8, 9, 10, 13, 14]
    assert starts.dtype == ends.dtype == torch.int32


def test_ragged_windows_with_requests_that_add_nothing():
    """A request without new tokens has no rows, but its keys are there."""
    starts, ends = ragged_windows(lens(0, 2, 0), lens(5, 2, 7))
    assert (starts.tolist(), ends.tolist()) == ([5, 5], [6, 7])


def test_the_published_verify_lengths():
    """Verify, 10 tokens and 3 drafts: 13 in the cache, rows see 11, 12, 13."""
    assert cache_lens("target_verify", lens(10), 3).tolist() == [13]
    assert expanded_lens("target_verify", lens(10), 3).tolist() == [11, 12, 13]


def test_the_published_draft_extend_lengths():
    """Draft-extend, 1 token and 6 drafts: what would be negative is 0."""
    assert expanded_lens("draft_extend", lens(1), 6).tolist() == [0, 0, 0, 0, 0, 1]
    assert cache_lens("draft_extend", lens(1), 6).tolist() == [1]


def test_decode_lengths():
    """One row a request, which sees all."""
    assert expanded_lens("decode", lens(5, 7)).tolist() == cache_lens("decode", lens(5, 7)).tolist() == [5, 7]


def test_rows_of_several_requests_follow_each_other():
    """n rows of the first request, then n of the second."""
    assert expanded_lens("target_verify", lens(10, 20), 2).tolist() == [11, 12, 21, 22]
