"""Rows of a prefill dealt to context-parallel ranks, in sequence or by turns: joined, they are all there in order."""

from __future__ import annotations

import pytest
import torch
from multi_rank import key_cases as cases

from dsa_exec.core.errors import ArgumentError
from dsa_exec.runtime.distributed.row_split import RowSplit


@pytest.mark.parametrize("group", ["two", "four"])
@pytest.mark.parametrize("lens", [(64, 40), (33, 7, 1), (3,), (0, 5, 0)])
@pytest.mark.parametrize("order", ["in_sequence", "round_robin"])
def test_selections_of_all_ranks_joined_are_the_whole(request, group, lens, order):
    """Several requests of unlike lengths: each row takes its own window along."""
    answers = request.getfixturevalue(group).run(cases.rows, lens, order)
    assert all(joined and selected for joined, selected, _, _ in answers)
    assert sum(it[2] for it in answers) == sum(lens)


@pytest.mark.parametrize("order", ["in_sequence", "round_robin"])
@pytest.mark.parametrize("world", [2, 3, 8])
def test_all_have_as_much_to_do(order, world):
    """Rows differ by few, and so do the keys that they see, though later rows see more."""
    lens = (1000, 411)
    split = RowSplit(lens, world, order)
    seen = torch.cat([torch.arange(1, it + 1) for it in lens])
    work = [int(split.take(seen, rank).sum()) for rank in range(world)]
    assert sum(work) == int(seen.sum())
    assert max(work) / min(work) < 1.03
    assert max(split.counts()) - min(split.counts()) <= 2 * len(lens)


def test_in_sequence_has_a_piece_from_the_front_and_one_from_the_end():
    """Of each request: the first rank has its first and its last rows, the last rank those in the middle."""
    split = RowSplit([8, 4], 2)
    assert [split.take(torch.arange(12), rank).tolist() for rank in range(2)] == [
        [0, 1, 6, 7, 8, 11],
        [2, 3, 4, 5, 9, 10],
    ]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: RowSplit((3, -1), 2), "RowSplit: lens[1] is -1; wanted an integer of at least 0"),
        (lambda: RowSplit((3,), 0), "RowSplit: world is 0; wanted an integer of at least 1"),
        (lambda: RowSplit((3,), 2, "zigzag"), "order is 'zigzag'; wanted 'in_sequence' or 'round_robin'"),
        (lambda: RowSplit((3,), 2).take([1, 2, 3], 0), "values is list; wanted a tensor [rows, ...]"),
        (lambda: RowSplit((3,), 2).take(torch.zeros(4), 0), "values has shape [4]; wanted 3 rows, the sum of lens"),
        (lambda: RowSplit((3,), 2).take(torch.zeros(3), 2), "rank is 2; wanted an integer from 0 to 1"),
    ],
)
def test_what_is_none_is_told(call, sentence):
    """A split that cannot be, or values that are not its rows, are refused in a sentence."""
    with pytest.raises(ArgumentError) as raised:
        call()
    assert sentence in str(raised.value)
