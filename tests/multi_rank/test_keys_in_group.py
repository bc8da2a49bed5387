"""Ranks that each have a part of the keys select what one rank with all of them does, and attend to the same."""

from __future__ import annotations

import pytest
from multi_rank import key_cases as cases

LENS = (70, 33, 5)
PLENTY = [2**40]
UNEQUAL = [2**40, 60_000, 250_000, 100]


@pytest.mark.parametrize("merge", ["replicated", "split"])
@pytest.mark.parametrize("kind", ["contiguous", "1", "16"])
@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
def test_a_prefill_of_two(two, kind, merge, tied):
    """The same positions to the bit, of whichever split; each rank has those that are its own."""
    for every, own, _, shape in two.run(cases.prefill, kind, LENS, tied, merge, PLENTY):
        assert every
        assert own
        assert shape


@pytest.mark.parametrize("merge", ["auto", "split"])
@pytest.mark.parametrize("kind", ["contiguous", "8"])
def test_ranks_with_other_budgets_take_other_chunks_and_do_not_wait_for_ever(four, kind, merge):
    """Four ranks, each with its own free memory; 108 rows and 4 ranks, so that shares are even, and keys are not."""
    answers = four.run(cases.prefill, kind, LENS, True, merge, UNEQUAL)
    assert all(every and own for every, own, _, _ in answers)
    chunks = [it[2] for it in answers]
    assert chunks[0] == 1
    assert len(set(chunks)) >= 3


@pytest.mark.parametrize("lens", [(1,), (3, 2), (7,)])
@pytest.mark.parametrize("merge", ["replicated", "split"])
def test_fewer_rows_or_keys_than_ranks(four, lens, merge):
    """Ranks that have no key, or no row to merge, take part all the same, and all is selected."""
    assert all(every and own for every, own, _, _ in four.run(cases.prefill, "1", lens, False, merge, PLENTY))


def test_no_row(two):
    """Without any row nothing is selected, and no rank waits for another."""
    assert all(every and own for every, own, _, _ in two.run(cases.prefill, "1", (0,), False, "split", PLENTY))


@pytest.mark.parametrize("group", ["two", "four"])
@pytest.mark.parametrize(("block", "rows", "merge"), [(16, 1, "auto"), (1, 3, "split"), (64, 1, "replicated")])
def test_a_decode_step(request, group, block, rows, merge):
    """Selection over two or four caches, attention over each rank's own slots, and the merge with an attention sink.

    f32 throughout: what differs from one rank is the order of sums.
    """
    answers = request.getfixturevalue(group).run(cases.decode, block, rows, merge, True)
    for off, lse_off, heads_agree, out, _, counts_pass_over_nothing in answers:
        assert counts_pass_over_nothing
        assert off < 2e-6
        assert lse_off < 2e-6
        assert heads_agree
        assert out == answers[0][3]  # the same bits on all ranks
    assert sum(answers[0][4]) < cases.K * 2 * rows  # not all of what is selected is this rank's


def test_what_fails_on_one_rank_is_told_on_all(two):
    """Both raise the same error in the same words: which rank failed, and why."""
    (error, words), (other, same) = two.run(cases.one_fails, "bad window")
    assert error == other == "RankFailed"
    assert words == same
    assert "index_select_over_keys() did nothing: rank 1: " in words
    assert "keys.ends" in words


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("no split", "DtypeError: index_select_over_keys: split is int"),
        ("no queries", ""),
        ("nobody to merge", "UnsupportedCall: topk_merge: triton: not on this rank"),
    ],
)
def test_whatever_is_wrong_on_one_rank_alone_is_told_before_anything_is_exchanged(two, how, sentence):
    """An argument that is none, and a backend that refuses to merge there: the group is of use afterwards."""
    (error, words), other = two.run(cases.one_fails, how)
    assert (error, words) == other
    assert error == "RankFailed"
    assert f"index_select_over_keys() did nothing: rank 1: {sentence}" in words


def test_ranks_that_split_the_keys_in_other_ways_are_told(two):
    """Each would take other positions for its own."""
    for error, words in two.run(cases.one_fails, "another split"):
        assert error == "RankFailed"
        assert "block=1" in words
        assert "block=2" in words


def test_a_failure_holds_no_tensor(two):
    """Once the error is gone: without waiting for the garbage collector, which memory that ran out cannot."""
    assert two.run(cases.freed_after_a_failure) == [("RankFailed", True)] * 2


def test_work_is_no_waiting(two):
    """The timeout counts from where a rank has done its part: nobody is lost who takes longer for that."""
    assert two.run(cases.slow_work, 0.5) == [("", "")] * 2


def test_a_group_of_some_ranks_counts_its_own(four):
    """Places in the group, not ranks of the job; nothing that is joined has a gradient."""
    answers = four.run(cases.in_a_group_of_some)
    assert answers[0] is None
    assert answers[2] is None
    assert all(answers[1])
    assert all(answers[3])


def test_ranks_that_make_other_calls_are_told(two):
    """Another k on one rank: both are told of both calls."""
    for error, words in two.run(cases.one_fails, "another k"):
        assert error == "RankFailed"
        assert "is not the same call on all ranks: rank 0: selects 24 keys for each of 40 rows" in words
        assert "rank 1: selects 23 keys" in words


def test_a_rank_that_hangs_is_given_up_and_so_is_the_group(new_group):
    """Within the timeout; whoever goes on with the group all the same is told at once, and computes nothing with it."""
    group = new_group(2)
    outcomes, seconds = group.run(cases.one_hangs, 1.5, without=[1])[0]
    assert [error for error, _ in outcomes] == ["RankLost", "GroupGivenUp", "GroupGivenUp"]
    assert "index_select_over_keys(): rank 0 waited 1.5 s (timeout 1.5 s) and not all of ranks 0, 1" in outcomes[0][1]
    assert "was given up" in outcomes[1][1]
    assert "attention_in_group(): the process group was given up" in outcomes[2][1]
    assert seconds < 4


def test_arguments_that_do_not_go_with_the_group(two):
    """Splits, choices and shapes that do not fit the ranks are refused in a sentence each."""
    answers = two.run(cases.refuse)
    for (error, words), sentence in zip(
        answers[0],
        (
            "split.parts is 3; wanted 2, the ranks of the group",
            "give is 'mine'; wanted 'own' or 'all'",
            "heads is 'own' for 3 heads; wanted heads='all', or a number of heads that 2 ranks share evenly",
            "lse has shape [1, 3]",
            "values has shape [2, 3, 4]; wanted 3 rows, those of rank 0",
            "world is 3; wanted 2, the ranks of the group",
        ),
        strict=True,
    ):
        assert error in ("RangeError", "ShapeError")
        assert sentence in words
