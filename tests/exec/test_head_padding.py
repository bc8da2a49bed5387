"""Heads padded with zeros: in memory that is reused where that is safe, and only there."""

from __future__ import annotations

import threading

import pytest
import torch

from dsa_exec.core import head_padding
from dsa_exec.core.head_padding import pad_heads, says_padding


@pytest.fixture(autouse=True)
def _no_buffers(monkeypatch):
    monkeypatch.setattr(head_padding, "_buffers", head_padding._Buffers())


def check_padded(padded: torch.Tensor, values: torch.Tensor, taken: int) -> None:
    assert padded.shape == (values.shape[0], taken, values.shape[2])
    assert padded.is_contiguous()
    assert torch.equal(padded[:, : values.shape[1]], values)
    assert not padded[:, values.shape[1] :].any()


@pytest.mark.parametrize("heads", [1, 12, 24, 63])
def test_missing_heads_are_zeros(heads):
    """Also when a call with more rows, or with others, came before."""
    for rows in (5, 2, 9, 3):
        values = torch.randn(rows, heads, 8)
        check_padded(pad_heads(values, 64), values, 64)


def test_the_memory_is_reused():
    """Fewer rows of the same heads are written to the same place; other widths, dtypes and heads are not."""
    first = pad_heads(torch.ones(4, 12, 8), 64)
    again = pad_heads(torch.full((3, 12, 8), 2.0), 64)
    assert again.data_ptr() == first.data_ptr()
    others = [
        pad_heads(torch.ones(4, 13, 8), 64),
        pad_heads(torch.ones(4, 12, 16), 64),
        pad_heads(torch.ones(4, 12, 8), 128),
        pad_heads(torch.ones(4, 12, 8).bfloat16(), 64),
    ]
    assert len({first.data_ptr(), *(it.data_ptr() for it in others)}) == 5
    assert (again[:, :12] == 2).all()


def test_what_needs_no_padding_is_passed_on():
    """Contiguous values are not copied; others are, into memory of their own."""
    values = torch.ones(3, 64, 8)
    assert pad_heads(values, 64) is values
    apart = torch.ones(3, 64, 10)[..., :8]
    assert pad_heads(apart, 64).is_contiguous()
    assert torch.equal(pad_heads(apart, 64), apart)
    odd = torch.ones(3 * 64 * 8 + 1)[1:].view(3, 64, 8)
    assert pad_heads(odd, 64).data_ptr() % 16 == 0


def test_a_captured_graph_has_its_own_memory(monkeypatch):
    """A replay must find the zeros that it left, whatever calls outside of it did since."""
    outside = pad_heads(torch.ones(3, 12, 8), 64)
    monkeypatch.setattr(head_padding, "is_capturing", lambda device: True)
    inside = [pad_heads(torch.ones(3, 12, 8), 64) for _ in range(2)]
    assert len({outside.data_ptr(), *(it.data_ptr() for it in inside)}) == 3
    assert len(head_padding._buffers.kept) == 1


def test_threads_do_not_share():
    """Two threads on one stream: the copy of one may come between the copy and the kernel of the other."""
    mine = pad_heads(torch.ones(3, 12, 8), 64)
    theirs = []
    thread = threading.Thread(target=lambda: theirs.append(pad_heads(torch.full((3, 12, 8), 2.0), 64)))
    thread.start()
    thread.join()
    assert theirs[0].data_ptr() != mine.data_ptr()
    assert (mine[:, :12] == 1).all()


def test_what_is_kept_is_bounded(monkeypatch):
    """The least recently used buffers go first; the last one stays, whatever its size."""
    monkeypatch.setattr(head_padding, "MOST_BYTES", 3 * 64 * 8 * 4)
    for heads in (1, 2, 3, 1, 4):
        pad_heads(torch.ones(1, heads, 8), 64)
    assert [key[2] for key in head_padding._buffers.kept] == [3, 1, 4]
    pad_heads(torch.ones(8, 5, 8), 64)
    assert [key[2] for key in head_padding._buffers.kept] == [5]


@pytest.mark.parametrize("first", [True, False])
def test_inference_mode_comes_and_goes(first):
    """Memory that was made under inference_mode would refuse a write outside of it."""
    for inference in (first, not first):
        with torch.inference_mode(inference):
            values = torch.randn(2, 12, 8)
            check_padded(pad_heads(values, 64), values, 64)


def test_the_words():
    """One head is no heads; no padding is no words."""
    assert says_padding(16, 64) == "16 heads padded to 64"
    assert says_padding(1, 64) == "1 head padded to 64"
    assert says_padding(64, 64) is None
