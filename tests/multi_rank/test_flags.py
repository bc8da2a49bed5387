"""Feature flags on the ranks of one replica: a share of replicas, never of ranks."""

from __future__ import annotations

import json

import pytest
from multi_rank import cases
from multi_rank.cases import Rank

KEYS = [f"replica-{number}" for number in range(16)]


@pytest.fixture
def half(tmp_path) -> str:
    """A flag that fuses top-k for half of those who ask."""
    flag = {
        "state": "ENABLED",
        "variants": {"fused": True, "separate": False},
        "defaultVariant": "fused",
        "targeting": {"fractional": [["fused", 50], ["separate", 50]]},
    }
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"flags": {"fuse_topk": flag}}))
    return str(path)


def test_all_ranks_of_a_replica_get_one_variant(four, half):
    """The bucket is a hash of the flag's name and the targeting key alone, whatever else the context knows."""
    seen = four.run(cases.variants, half, KEYS)
    assert seen == [seen[0]] * 4
    assert set(seen[0]) == {True, False}, "a share of the replicas, not all or none"


def test_a_key_with_the_rank_in_it_is_told(four, half):
    """It is a difference in itself, beside the flags that already differ for it, each with its variant."""
    particular = {
        rank: Rank(load={"flags": half}, flag_context={"targetingKey": f"replica-0-rank-{rank}"}) for rank in range(4)
    }
    outcomes = four.run(cases.compare, particular)
    assert {it.error for it in outcomes} == {"RanksDisagree"}
    (words,) = {it.words for it in outcomes}
    assert 'the targetingKey is "replica-0-rank-0" on rank 0' in words
    assert "fuse_topk is " in words
    assert f"flag fuse_topk in {half}:1, variant 'separate'" in words
    assert f"flag fuse_topk in {half}:1, variant 'fused'" in words


def test_a_rule_that_asks_for_the_rank_is_told(four, tmp_path):
    """The same key does not help where a rule looks at the rank: what counts is what the flag gives."""
    rule = {"if": [{"==": [{"var": "rank"}, 2]}, "separate", "fused"]}
    flag = {"state": "ENABLED", "variants": {"fused": True, "separate": False}, "targeting": rule}
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"flags": {"fuse_topk": flag}}))
    particular = {
        rank: Rank(load={"flags": str(path)}, flag_context={"targetingKey": "replica-1", "rank": rank})
        for rank in range(4)
    }
    (words,) = {it.words for it in four.run(cases.compare, particular)}
    assert "fuse_topk is true on ranks 0, 1, 3" in words
    assert "variant 'separate'" in words
    assert "targetingKey" not in words
