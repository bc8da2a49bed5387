"""Real processes allocate the pools of their stages: as `dsa plan` says, with the same tokens, each layer once."""

from __future__ import annotations

import dataclasses
import json

import pytest
from model_configs import DEEPSEEK_V4_FLASH, DEEPSEEK_V32, GLM_5
from multi_rank import pool_cases
from multi_rank.pool_cases import Asked
from typer.testing import CliRunner

from dsa_exec.cli import app

MIB = 2**20
V32 = {**DEEPSEEK_V32, "num_hidden_layers": 7}
GLM = {**GLM_5, "num_hidden_layers": 6, "index_topk_freq": 3}
V4_LAYERS = 9
V4 = {
    **DEEPSEEK_V4_FLASH,
    "num_hidden_layers": V4_LAYERS,
    "compress_ratios": DEEPSEEK_V4_FLASH["compress_ratios"][: V4_LAYERS + 1],
}
V4_OPTIONS = {"max_running_requests": 2, "draft_tokens": 1}
TOTAL, FREE = 40 * MIB, 34 * MIB  # of a rank: 6 MiB are weights


def deployment(config=V32, options=None, memory=None, **world):
    """A deployment with the same memory on all ranks, if not said otherwise."""
    ranks = world.get("pp", 1) * max(world.get("tp", 1), world.get("cp", 1))
    return Asked(config, world, memory or ((TOTAL, FREE),) * ranks, options or {})


def planned(asked, path):
    """What `dsa plan --json` says of each rank, by its number, and how many tokens there are."""
    path.write_text(json.dumps(asked.config))
    total, free = asked.memory[0]
    given = {"gpu-mem": total, "weights": total - free, **asked.world, **asked.options}
    arguments = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", said(value))]
    done = CliRunner().invoke(app, ["plan", "--model", str(path), *arguments, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    return document["tokens"], {rank: group for group in document["ranks"] for rank in group["ranks"]}


def said(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(
    ("size", "asked"),
    [
        ("two", deployment(pp=2)),
        ("two", deployment(V4, V4_OPTIONS, ((60 * MIB, 58 * MIB),) * 2, pp=2)),
        ("four", deployment(options={"stage_layers": (1, 3, 2, 1), "draft_tokens": 1}, pp=4)),
        ("four", deployment(V4, {**V4_OPTIONS, "stage_layers": (4, 2, 1, 2)}, ((60 * MIB, 58 * MIB),) * 4, pp=4)),
        ("four", deployment(GLM, pp=2, tp=2)),
        ("four", deployment(options={"kv_dtype": "bf16"}, pp=2, cp=2)),
    ],
    ids=["pp2", "pp2-v4", "pp4-uneven", "pp4-uneven-v4", "pp2-tp2", "pp2-cp2"],
)
def test_what_is_allocated_is_what_dsa_plan_says(size, asked, request, tmp_path):
    """Each rank has its bytes, by its storages, the layers of its stage and no others, and the tokens of all."""
    tokens, groups = planned(asked, tmp_path / "config.json")
    kv = {"kv": asked.options["kv_dtype"]} if "kv_dtype" in asked.options else {}
    options = {name: value for name, value in asked.options.items() if name != "kv_dtype"}
    held = request.getfixturevalue(size).run(pool_cases.allocate, dataclasses.replace(asked, options={**options, **kv}))
    assert [it.tokens for it in held] == [tokens] * len(held)
    assert [it.bytes for it in held] == [groups[rank]["pools_bytes"] for rank in range(len(held))]
    for rank, it in enumerate(held):
        assert it.layers == {pool["name"]: tuple(pool["layers"]) for pool in groups[rank]["pools"]}
        assert 0 < it.bytes <= it.memory_bytes


@pytest.mark.parametrize(
    ("asked", "every"),
    [
        (deployment(options={"stage_layers": (1, 3, 2, 1), "draft_tokens": 1}, pp=4), range(8)),
        (deployment(GLM, pp=2, tp=2), range(6)),
    ],
    ids=["pp4-uneven", "pp2-tp2"],
)
def test_no_layer_is_in_two_stages_or_in_none(asked, every, four):
    """The stages of one tp rank together have every layer once, the draft layer too."""
    held = four.run(pool_cases.allocate, asked)
    stages = held[:: len(held) // asked.world["pp"]]
    assert [layer for it in stages for layer in it.layers["mla_kv"]] == list(every)


def test_a_rank_with_less_memory_decides(four, tmp_path):
    """All take the tokens that fit there; the plan says which rank, with what memory, and what others have room for."""
    short = (TOTAL, FREE - 9 * MIB)
    held = four.run(pool_cases.allocate, deployment(pp=2, tp=2, memory=((TOTAL, FREE),) * 3 + (short,)))
    _, usual = planned(deployment(pp=2, tp=2), tmp_path / "config.json")
    _, scarce = planned(deployment(pp=2, tp=2, memory=(short,) * 4), tmp_path / "config.json")
    least, most = scarce[3]["fits_tokens"], usual[2]["fits_tokens"]
    assert least < usual[0]["fits_tokens"] < most
    assert [it.tokens for it in held] == [least] * 4
    assert [it.memory_bytes for it in held] == [30 * MIB] * 3 + [21 * MIB]
    (why,) = {it.why for it in held}
    assert why == (
        f"{least} tokens on every rank, as many as fit on rank 3 (layers [4,7)), whose pools may take {21 * MIB} "
        f"bytes; rank 2 (layers [4,7)) has room for {most}"
    )


def test_one_collective_of_few_bytes(four):
    """What goes well is one exchange, whatever ranks have."""
    asked = deployment(pp=4, memory=tuple((TOTAL, FREE - rank * MIB) for rank in range(4)))
    answers = four.run(pool_cases.plan_and_count, asked)
    assert {tuple(sent) for _, sent in answers} == {(25,)}
    assert len({tokens for tokens, _ in answers}) == 1


def test_a_limit_is_the_reason_where_it_holds(two):
    """With max_tokens no rank is short of memory."""
    held = two.run(pool_cases.allocate, deployment(options={"max_tokens": 200}, pp=2))
    assert {(it.tokens, it.why) for it in held} == {(192, "192 tokens on every rank, the most of max_tokens=200")}


def test_the_share_of_each_rank_is_its_setting(two):
    """`mem_fraction_static` counts as it is read on each rank; the rank with the smaller share decides."""
    asked = deployment(pp=2)
    more, less = (two.run(pool_cases.with_fractions, asked, {0: 0.9, 1: share}) for share in (0.9, 0.6))
    assert more[0] == more[1] > less[0] == less[1] > 0


@pytest.mark.parametrize("size", ["two", "four"])
def test_a_rank_that_cannot_read_its_memory_is_told_to_all(size, request):
    """Nobody waits, nobody allocates: every rank gets the rank and the driver's words."""
    group = request.getfixturevalue(size)
    failure = {1: ("memory_reading", RuntimeError("CUDA driver error: unknown error"))}
    ((error, words),) = set(group.run(pool_cases.failing, deployment(pp=group.size), failure))
    assert error == "RankFailed"
    assert words == (
        "allocate_stage_pools() has planned nothing on any rank: rank 1: RuntimeError: CUDA driver error: unknown error"
    )
    held = group.run(pool_cases.allocate, deployment(pp=group.size))  # the group is as good as before
    assert len({it.tokens for it in held}) == 1


def test_what_fails_on_every_rank_is_raised_as_it_is(two):
    """One rank has no more to tell than another."""
    failure = {rank: ("memory_reading", RuntimeError("no driver")) for rank in range(2)}
    assert set(two.run(pool_cases.failing, deployment(pp=2), failure)) == {("RuntimeError", "no driver")}
    wrong = deployment(options={"kv": "fp7"}, pp=2)
    ((error, words),) = set(two.run(pool_cases.failing, wrong, {}))
    assert (error, words) == ("PlanError", "kv format is 'fp7'; wanted one of fp8, bf16, fp8-raw")


def test_a_rank_that_cannot_allocate_is_told_to_all(four):
    """All planned, one has no such memory after all: no rank goes on with pools that others lack."""
    failure = {2: ("allocate_pools", MemoryError("cannot allocate 31457280 bytes"))}
    ((error, words),) = set(four.run(pool_cases.failing, deployment(pp=4), failure))
    assert error == "RankFailed"
    assert words.startswith("allocate_stage_pools() did nothing: rank 2: MemoryError: cannot allocate 31457280 bytes")


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (
            4 * MIB,
            "number of bytes that are taken already is 37748736; wanted fewer than the 41943040 x 0.9 = 37748736",
        ),
        (4 * MIB + 65536, "tokens that fit in the pools of a rank in stage 1 is 0; wanted at least 64, one page. Give"),
    ],
)
def test_a_rank_without_room_is_told_to_all(free, words, two):
    """Which rank, how much it has, and what to change there."""
    asked = deployment(pp=2, memory=((TOTAL, FREE), (TOTAL, free)))
    ((error, told),) = set(two.run(pool_cases.with_plans, {0: asked, 1: asked}))
    assert error == "RankFailed"
    assert f"on any rank: rank 1: PlanError: {words}" in told


def test_ranks_that_ask_for_different_plans(four):
    """They are told what differs, by rank, before anything is planned. Where a model was read may differ."""
    usual, other = deployment(pp=4), deployment({**V32, "index_n_heads": 32}, {"kv": "bf16"}, pp=4)
    ((error, words),) = set(four.run(pool_cases.with_plans, {0: usual, 1: usual, 2: other, 3: usual}))
    assert error == "RankFailed"
    assert words == (
        "allocate_stage_pools() has planned nothing on any rank, since ranks ask for different plans: "
        "ranks 0, 1, 3: the model's index_heads is 64, kv is 'fp8'; rank 2: the model's index_heads is 32, kv is 'bf16'"
    )


def test_a_world_of_another_size(two):
    """The group has the ranks of the plan, or every rank says so."""
    ((error, words),) = set(two.run(pool_cases.with_plans, dict.fromkeys(range(2), deployment(pp=4))))
    assert error == "PlanError"
    assert words == "number of ranks of the group is 2; wanted 4, as of tp=1, pp=4, dp=1, cp=1"


def test_a_rank_that_is_gone(new_group):
    """The others are told in time."""
    answers = new_group(2).run(pool_cases.without_one, deployment(pp=2), 1, 1.5, without=[1])
    assert answers[0][0] == "RankLost"
    assert answers[0][1].startswith("allocate_stage_pools(): rank 0 waited ")
