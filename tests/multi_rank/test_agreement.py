"""Ranks compare their settings: all go on, or all are told the same, with values, ranks and origins."""

from __future__ import annotations

import pytest
from multi_rank import cases
from multi_rank.cases import Rank

DECLARED = "from the declaration"


@pytest.mark.parametrize("size", ["two", "four"])
def test_ranks_that_agree_go_on(size, request):
    """The same values from different places are the same; what may differ may."""
    particular = {
        0: Rank(env={"SGLANG_DSA_KV_FORMAT": "model"}),
        1: Rank(set={"kv_format": "model", "debug_log_decisions": True, "debug_check_indices": True}),
        2: Rank(env={"SGLANG_DSA_KV_FORMAT": "model"}, set={"fuse_topk": True}),
        3: Rank(set={"kv_format": "model"}),
    }
    outcomes = request.getfixturevalue(size).run(cases.compare, particular)
    assert [it.error for it in outcomes] == [""] * len(outcomes)


@pytest.mark.parametrize(("size", "others"), [("two", "rank 0"), ("four", "ranks 0, 2, 3")])
def test_a_variable_of_one_rank_is_told_to_all(size, others, request):
    """Every rank gets the same sentence: setting, values, ranks, and the name of the variable."""
    outcomes = request.getfixturevalue(size).run(cases.compare, {1: Rank(env={"SGLANG_NSA_FUSE_TOPK": "0"})})
    assert {it.error for it in outcomes} == {"RanksDisagree"}
    (words,) = {it.words for it in outcomes}
    assert words == (
        f"ranks disagree: fuse_topk is true on {others} ({DECLARED}) and false on rank 1 "
        "(from environment variable SGLANG_NSA_FUSE_TOPK)"
    )


def test_a_file_of_one_rank_is_told_with_its_line(four, tmp_path):
    """Origins are as exact as on one rank."""
    file = tmp_path / "one.toml"
    file.write_text('\nkv_format = "model"\n')
    outcomes = four.run(cases.compare, {3: Rank(load={"file": str(file)})})
    assert {it.error for it in outcomes} == {"RanksDisagree"}
    (words,) = {it.words for it in outcomes}
    assert f'kv_format is "fp8" on ranks 0-2 ({DECLARED}) and "model" on rank 3' in words
    assert f"{file}:2" in words


def test_all_differences_are_told_at_once(four):
    """Values that programs set are told with the line that set them; three values of one setting are three."""
    outcomes = four.run(
        cases.compare,
        {
            0: Rank(set={"mqa_logits_max_chunk_bytes": 1}),
            1: Rank(set={"mqa_logits_max_chunk_bytes": 2, "topk_backend": "torch"}),
        },
    )
    assert {it.error for it in outcomes} == {"RanksDisagree"}
    (words,) = {it.words for it in outcomes}
    lines = words.splitlines()
    assert lines[0] == "ranks disagree on 2 settings:"
    assert lines[1].startswith("  mqa_logits_max_chunk_bytes is 1 on rank 0 (from settings.set at ")
    assert "cases.py:" in lines[1]
    assert lines[1].endswith(f"and 0 on ranks 2, 3 ({DECLARED})")
    assert lines[2].startswith('  topk_backend is "auto" on ranks 0, 2, 3')


def test_an_override_counts_where_it_holds(four):
    """What is compared is what a read would give on each rank now."""
    outcomes = four.run(cases.compare_in_scope)
    (words,) = {it.words for it in outcomes}
    assert "true on ranks 0, 1, 3 (from settings.override at " in words
    assert [it.error for it in four.run(cases.compare, {})] == [""] * 4


def test_by_policy_a_difference_is_a_warning_once(four):
    """All ranks go on, each with one warning for the same difference, however often it is found."""
    answers = four.run(cases.compare_and_warn, {2: Rank(set={"fuse_topk": False})}, 3)
    assert [counts for _, counts in answers] == [[1, 1, 1]] * 4
    (words,) = {told for warned, _ in answers for told in warned}
    assert [len(warned) for warned, _ in answers] == [1] * 4
    assert words.startswith("RanksDisagreeWarning: ranks disagree: fuse_topk is true on ranks 0, 1, 3")


def test_settings_that_cannot_be_read_are_told_to_all(two):
    """Also where both have the same bad text, on which they agree in a way; no rank waits for one that has failed."""
    bad = Rank(env={"SGLANG_DSA_KV_FORMAT": "fp9"})
    one, both = two.run(cases.bad_values, {1: bad}), two.run(cases.bad_values, {0: bad, 1: bad})
    assert {error for error, _ in [*one, *both]} == {"RankFailed"}
    (words,) = {words for _, words in one}
    assert words.startswith("agree() cannot compare settings: rank 1: SGLANG_DSA_KV_FORMAT='fp9' (from environment")
    (words,) = {words for _, words in both}
    assert words.startswith("agree() cannot compare settings: ranks 0, 1: SGLANG_DSA_KV_FORMAT='fp9'")


def test_members_of_a_group_are_called_by_their_ranks(four):
    """A group compares its own ranks alone, and a rank that is not of it is told so."""
    outcomes = four.run(
        cases.compare_members, [1, 3], {0: Rank(set={"kv_format": "model"}), 3: Rank(set={"fuse_topk": False})}
    )
    assert [it.error for it in outcomes] == ["NoProcessGroup", "RanksDisagree", "NoProcessGroup", "RanksDisagree"]
    assert "fuse_topk is true on rank 1 (" in outcomes[1].words
    assert "false on rank 3 (" in outcomes[1].words
    assert outcomes[0].words.endswith("rank 0 is not of the group that was given")


def test_arguments_that_are_none_are_refused_before_anything_is_sent(two):
    """A policy, a timeout, a source: with what is allowed."""
    (words,) = {tuple(it) for it in two.run(cases.refuse_arguments)}
    assert words == (
        "agree: policy='ignore'; wanted 'raise' or 'warn'",
        "agree(): timeout=0; wanted seconds, above 0 and at most 86400",
        "broadcast_overrides(): source=9 is not a rank of the group; wanted 0 to 1",
    )


def test_without_a_process_group_there_is_nothing_to_compare():
    """One process that never met others is told what is missing, and does not believe that all agree."""
    from dsa_exec.runtime.distributed import NoProcessGroup, agree

    with pytest.raises(NoProcessGroup, match=r"agree\(\) needs a process group .*init_process_group was not called"):
        agree()
