"""Rows of the indexer dealt to ranks: the bits of one process on all, and no rank that waits for ever."""

from __future__ import annotations

import pytest
import torch
from live_tensors import Watch
from multi_rank import index_cases as cases

from dsa_exec.runtime.distributed import NoProcessGroup
from dsa_exec.runtime.distributed.index_rows import index_select_in_group
from dsa_exec.runtime.distributed.row_deal import RowDeal

BATCHES = ([0], [1], [3], [70], [5, 60, 0, 64], [129])
REQUESTS = ((0, 1), (1, 1), (3, 2), (9, 1))
WAITS = {"aten.nonzero", "aten.item", "aten._local_scalar_dense", "aten.is_nonzero", "aten.masked_select"}


@pytest.mark.parametrize("scores", ["coarse", "equal"])
@pytest.mark.parametrize("size", ["two", "four"])
def test_all_ranks_have_the_bits_of_one_process(size, scores, request):
    """Rows that ranks do not divide, fewer than ranks, none; scores that tie; whole requests of keys in the cache."""
    group = request.getfixturevalue(size)
    wanted = [cases.alone(cases.gathered(it, scores=scores)) for it in BATCHES]
    wanted += [cases.alone(cases.paged(*it)) for it in REQUESTS]
    by_rank = group.run(cases.select_batches, BATCHES, scores, REQUESTS)
    for selected in by_rank:
        assert [it.words for it in selected] == [""] * len(wanted)
        assert [it.indices for it in selected] == wanted
    shared = [sum(rank[batch].scored[0] for rank in by_rank) for batch in range(1, len(BATCHES))]
    assert shared == [sum(it) for it in BATCHES[1:]], "each row was scored by one rank"


def test_ties_are_there():
    """What the tests above call ties: k-th and next score are equal in most rows, and the lowest position wins."""
    q, weights, keys, k = cases.gathered([70])
    scores = (torch.einsum("thd,sd->ths", q.float(), keys.keys.float()).relu() * weights[:, :, None]).sum(1)
    tied = 0
    for row, end in zip(scores, keys.ends.tolist(), strict=True):
        best = row[:end].sort(descending=True).values
        tied += bool(best[k - 1] == best[k])
    assert tied > 20
    assert cases.alone(cases.gathered([70], scores="equal"))[0] == list(range(k))


def test_other_chunks_on_each_rank_stop_nobody(four):
    """Ranks with other memory do their shares in other numbers of chunks, and all have the same bits."""
    by_rank = four.run(cases.select_with_little_memory, [150], [2**30, 250_000, 120_000, 60_000])
    chunks = [it.chunks for it in by_rank]
    assert len(set(chunks)) == 4, chunks
    assert [it.indices for it in by_rank] == [cases.alone(cases.gathered([150]))] * 4


def test_settings_say_who_scores_what(two):
    """Replicated: each all. auto: a prefill is split from so many logits on, as far as rows can see; decode is not."""
    threshold = {"tp_index_rows_logits_threshold": 64 * 94}
    more = {"tp_index_rows_logits_threshold": 64 * 94 + 1}
    choices = [
        ({"tp_index_rows": "replicated"}, {}),
        ({"tp_index_rows": "split"}, {}),
        ({}, {}),
        (threshold, {}),
        (more, {}),
        (threshold, {"longest_tokens": 93}),
        (threshold, {"longest_tokens": 1000}),
        ({"tp_index_rows_logits_threshold": 0}, {}),
    ]
    split, whole, decode = [32], [64], [6]
    prefills = [whole, split, whole, split, whole, whole, split, split]
    seen = [scored for prefill in prefills for scored in (prefill, decode)]
    seen[3] = [3]  # decode too, where that is what the setting says
    assert two.run(cases.select_by, choices) == [seen] * 2


def test_a_group_of_some_ranks_counts_its_own(four):
    """Ranks 1 and 3 deal among themselves; the others are told that it is not theirs."""
    by_rank = four.run(cases.select_in, [1, 3], [40])
    wanted = cases.alone(cases.gathered([40]))
    assert [it.indices for it in by_rank] == [None, wanted, None, wanted]
    assert [it.scored for it in by_rank] == [[], [20], [], [20]]
    assert [it.error for it in by_rank] == ["NoProcessGroup", "", "NoProcessGroup", ""]


def test_indices_go_where_the_caller_wants_them(two):
    """Into rows as far apart as wanted, and nowhere else."""
    wanted = cases.alone(cases.gathered([37]))
    for selected, written, beside in two.run(cases.select_into, [37]):
        assert selected.indices == written == wanted
        assert beside == [[7] * 3] * 37


@pytest.mark.parametrize(("rows", "failing"), [([9], "rank 1"), ([24, 0, 16], "ranks 0, 2, 3")])
def test_a_rank_that_fails_tells_all(four, rows, failing):
    """All get its words at once; nobody waits for it, and the group goes on."""
    for bad, good in four.run(cases.select_bad_rows, rows):
        assert bad.error == "RankFailed"
        assert bad.words.startswith("index_select_in_group() did nothing: ")
        assert f"{failing}: RangeError: index_select: keys.ends holds 63 at [" in bad.words
        assert good.indices == cases.alone(cases.gathered([32]))


def test_what_fails_on_all_ranks_is_raised_as_it_is(two):
    """A mistake of the caller has the type and fields that it has on one process."""
    assert [bad.error for bad, _ in two.run(cases.select_bad_rows, range(32))] == ["RangeError"] * 2


def test_a_rank_without_memory_tells_all(four):
    """What one rank alone runs into is where the others would wait."""
    (words,) = {it.words for it in four.run(cases.select_without_memory, 2)}
    assert words.startswith("index_select_in_group() did nothing: rank 2: OutOfMemoryError: CUDA out of memory.")


def test_ranks_that_select_for_other_numbers_are_told(two):
    """Before a collective whose sizes do not fit: k, and rows."""
    for k, rows in two.run(cases.select_other_numbers):
        what = "index_select_in_group() is not the same call on all ranks"
        assert (
            k.words
            == f"{what}: rank 0: selects 12 keys for each of 32 rows; rank 1: selects 11 keys for each of 32 rows"
        )
        assert rows.words.endswith("rank 1: selects 12 keys for each of 33 rows")


def test_a_graph_has_one_collective_and_no_question(two):
    """While it is captured ranks tell each other nothing, which would wait, and an error is raised where it is."""
    for (good, bad), told, gathers in two.run(cases.select_as_if_captured):
        assert good.indices == cases.alone(cases.gathered([37]))
        assert bad.error == "RangeError"
        assert told == 0
        assert gathers == 1  # of the good one; the bad one ends before


def test_a_compiled_program_does_the_same(two):
    """As one node of the graph, which follows the setting as of each run."""
    prefill, decode = cases.alone(cases.gathered([37])), cases.alone(cases.paged(5, 2))
    assert two.run(cases.select_compiled, [0, 1]) == [[prefill, decode, prefill, prefill, prefill]] * 2


def test_a_lost_rank_is_told_in_time(new_group):
    """Not after the timeout of the group."""
    outcomes = new_group(2).run(cases.select_without_one, 1, 1.5, without=[1])
    assert outcomes[0].error == "RankLost"
    assert outcomes[0].words.startswith("index_select_in_group(): rank 0 waited ")


def test_shares_do_not_hide_wrong_arguments(two):
    """Whole arguments are checked before they are dealt out, by the same words on all ranks."""
    (words,) = {tuple(it) for it in two.run(cases.select_wrong)}
    assert [it.split(";")[0] for it in words] == [
        "index_select_in_group: keys.starts has shape [33], with 33 at dimension 0",
        "index_select_in_group: head_weights has shape [33, 4], with 33 at dimension 0",
        "index_select_in_group: head_weights has shape [5, 4], with 5 at dimension 0",
        "index_select_in_group: out has shape [31, 12], with 31 at dimension 0",
        "index_select_in_group: keys is tuple",
        "index_select_in_group: k is 0",
        "index_select_in_group: longest_tokens is -1",
    ]


def test_without_a_process_group_it_says_so():
    """And does not take one process for all."""
    with pytest.raises(NoProcessGroup, match=r"index_select_in_group\(\) needs a process group"):
        index_select_in_group(*cases.gathered([3]))


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 63, 64, 65, 1000])
@pytest.mark.parametrize(("together", "each"), [(8, 1), (1, 3)])
def test_each_row_is_dealt_once_and_comes_back(world, rows, together, each):
    """From strided rows, to strided rows; nobody is asked for a number on the device."""
    deal = RowDeal(rows, world, together).times(each)
    values = torch.arange(rows * each * 4).view(rows * each, 4)[:, ::2]
    with Watch() as watch:
        shares = torch.full((world, deal.most, 2), -1)
        for rank in range(world):
            share = deal.share(values, rank)
            assert share.is_contiguous()
            shares[rank, : len(share)] = share
        out = deal.put_back(shares, torch.zeros(rows * each, 5, dtype=torch.int64)[:, 1:3])
    assert WAITS.isdisjoint(watch.calls)
    assert torch.equal(out, values)
    assert sum(deal.count(rank) for rank in range(world)) == rows * each
    assert deal.most == -(-rows // world) * each, "as few as can be, of what is never parted"


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("windows", ["one prompt", "two prompts", "the end of a long one"])
def test_ranks_have_as_much_to_do(world, windows):
    """Keys that a rank's rows see, in a causal prefill: within 2 % of an equal part. And neighbours stay together."""
    seen = {
        "one prompt": torch.arange(1, 8193),
        "two prompts": torch.cat([torch.arange(1, 6001), torch.arange(1, 2193)]),
        "the end of a long one": torch.arange(1, 8193) + 100_000,
    }[windows].double()
    deal = RowDeal(len(seen), world, 8)
    work = torch.stack([deal.share(seen, rank).sum() for rank in range(world)])
    assert ((work / (seen.sum() / world) - 1).abs() < 0.02).all()
    rows = deal.share(torch.arange(len(seen)), 1)
    assert (rows[:8].diff() == 1).all()
