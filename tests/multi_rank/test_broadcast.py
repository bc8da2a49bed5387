"""One rank's process-wide values reach all ranks, or none."""

from __future__ import annotations

from multi_rank import cases
from multi_rank.cases import Rank


def test_what_rank_0_set_holds_everywhere(four):
    """Each rank says where it has a value from; settings that may differ stay each rank's own."""
    outcomes = four.run(
        cases.broadcast,
        {0: Rank(set={"kv_format": "model", "debug_log_decisions": True}), 2: Rank(set={"fuse_topk": False})},
    )
    assert [it.error for it in outcomes] == [""] * 4
    assert [it.values["kv_format"] for it in outcomes] == ["model"] * 4
    assert [it.values["fuse_topk"] for it in outcomes] == [True] * 4, "what only another rank had is taken back"
    assert [it.values["debug_log_decisions"] for it in outcomes] == [True, False, False, False]
    assert outcomes[0].origins["kv_format"].startswith("settings.set at ")
    for it in outcomes[1:]:
        assert it.origins["kv_format"].startswith("broadcast_overrides() from rank 0, from settings.set at ")


def test_it_wins_over_variables_of_the_other_ranks(two):
    """It is a value of the process, in the layer of `settings.set`."""
    outcomes = two.run(
        cases.broadcast,
        {0: Rank(set={"fuse_topk": False}), 1: Rank(env={"SGLANG_DSA_FUSE_TOPK": "1"})},
    )
    assert [it.values["fuse_topk"] for it in outcomes] == [False, False]


def test_another_rank_may_be_the_source(four):
    """By its place in the group."""
    outcomes = four.run(
        cases.broadcast,
        {0: Rank(set={"mqa_logits_max_chunk_bytes": 1}), 3: Rank(set={"mqa_logits_max_chunk_bytes": 3})},
        3,
    )
    assert [it.values["mqa_logits_max_chunk_bytes"] for it in outcomes] == [3] * 4


def test_scoped_overrides_are_not_touched(two):
    """They win while they hold, on the sender as well, and are not sent."""
    assert two.run(cases.broadcast_in_scope) == [[(True, 4096), (False, 4096)]] * 2


def test_what_is_taken_back_is_taken_back_everywhere(two):
    """A reset on rank 0 reaches the others with the next broadcast."""
    assert two.run(cases.broadcast_and_take_back) == [[False, True]] * 2


def test_a_value_that_one_rank_refuses_changes_nothing_anywhere(four):
    """Checked on all before it is taken on any; every rank gets the refusal, and by whom."""
    outcomes = four.run(cases.broadcast_refused, 2)
    assert {it.error for it in outcomes} == {"RankFailed"}
    (words,) = {it.words for it in outcomes}
    assert words.startswith(
        "broadcast_overrides() has changed nothing on any rank: rank 2: topk_backend='torch' "
        "(from broadcast_overrides() from rank 0, from settings.set at "
    )
    assert "topk_backend takes" in words
    assert [it.values["kv_format"] for it in outcomes] == ["model", "fp8", "fp8", "fp8"]
    assert [it.error for it in four.run(cases.compare, {})] == [""] * 4, "the group goes on"


def test_a_value_that_cannot_be_sent_is_told_to_all(two):
    """The ranks that wait for it get the reason of the one that has it; any live object can be given out."""
    outcomes = two.run(cases.broadcast_what_has_no_text)
    assert [(error, kept) for error, _, kept in outcomes] == [("RankFailed", True)] * 2
    (words,) = {words for _, words, _ in outcomes}
    assert words.startswith("broadcast_overrides() has changed nothing on any rank: rank 0: thing=")
