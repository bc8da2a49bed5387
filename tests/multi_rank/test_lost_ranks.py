"""A rank that dies or hangs: the others are told within the timeout."""

from __future__ import annotations

import pytest
from multi_rank import cases

TIMEOUT_S = 1.5


@pytest.mark.parametrize(
    ("size", "missing", "end", "call"),
    [
        (2, 1, "dies", "broadcast_overrides"),
        (2, 0, "hangs", "agree"),
        (4, 1, "dies", "agree"),
        (4, 2, "hangs", "broadcast_overrides"),
    ],
)
def test_the_others_do_not_wait_for_ever(size, missing, end, call, new_group):
    """Each gets an error that says what to do, in time, and keeps its values."""
    outcomes = new_group(size).run(cases.without_one, missing, end, call, TIMEOUT_S, without=[missing])
    ranks = "ranks 0, 1" if size == 2 else "ranks 0-3"
    for rank, outcome in enumerate(outcomes):
        if rank == missing:
            continue
        assert outcome.error == "RankLost"
        assert outcome.words.startswith(f"{call}(): rank {rank} waited ")
        assert f"(timeout 1.5 s) and not all of {ranks} answered: one has died, hangs, or has not" in outcome.words
        assert outcome.seconds < TIMEOUT_S + 3
        assert outcome.values["fuse_topk"] is False


def test_a_rank_that_comes_too_late_is_told_as_well(new_group):
    """It does not take the answers that others left behind for an agreement."""
    outcomes = new_group(4).run(cases.with_a_late_one, 2, 0.5)
    assert [it.error for it in outcomes] == ["RankLost"] * 4
