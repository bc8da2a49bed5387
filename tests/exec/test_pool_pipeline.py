"""Stages of a pipeline, groups of processes, and how a plan divides layers and memory among them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from model_configs import DEEPSEEK_V4_FLASH, DEEPSEEK_V32, GLM_5

from dsa_exec.core.errors import PlanError
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_layers import LayerSlice, layer_slices
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_pools import plan_pools
from dsa_exec.memory.plan_world import Place, World
from dsa_exec.memory.pool_memory import USUAL_FRACTION, pool_bytes

GIB = 2**30
V32 = geometry_of(DEEPSEEK_V32, "v32/config.json")
GLM = geometry_of({**GLM_5, "index_topk_freq": 3}, "glm/config.json")
V4 = geometry_of(DEEPSEEK_V4_FLASH, "v4/config.json")


WHY = "because attention's dp and cp groups divide a stage's tp processes"


def spans(slices):
    return [(it.start, it.end) for it in slices]


def test_an_even_split():
    """61 layers over 4 stages: the first has one more, and each range leaves out its end."""
    slices = layer_slices(61, 4)
    assert spans(slices) == [(0, 16), (16, 31), (31, 46), (46, 61)]
    assert [it.local for it in slices] == [16, 15, 15, 15]
    assert list(slices[3].layers) == list(range(46, 61))
    assert str(slices[1]) == "[16,31)"
    assert layer_slices(61, 1) == (LayerSlice(0, 61, 61),)


def test_an_uneven_split():
    """Stages of any sizes that add up, in the order given."""
    assert spans(layer_slices(43, 3, [1, 40, 2])) == [(0, 1), (1, 41), (41, 43)]


@examples(deadline=None)
@given(total=st.integers(1, 200), data=st.data())
def test_slices_have_every_layer_once(total, data):
    """Whatever the split, stages follow each other without gap or overlap, and even ones differ by one at most."""
    stages = data.draw(st.integers(1, total))
    even = layer_slices(total, stages)
    assert [layer for it in even for layer in it.layers] == list(range(total))
    assert max(it.local for it in even) - min(it.local for it in even) <= 1
    cuts = sorted(data.draw(st.sets(st.integers(1, total - 1), max_size=stages - 1))) if total > 1 else []
    sizes = [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]
    given = layer_slices(total, len(sizes), sizes)
    assert [layer for it in given for layer in it.layers] == list(range(total))
    assert [it.local for it in given] == sizes


@pytest.mark.parametrize(
    ("stages", "sizes", "text"),
    [
        (44, None, "pp is 44; wanted at most 43, the model's layers: each stage needs at least one"),
        (2, [43, 0], "layers of each stage is 43,0; wanted at least one layer in each; stage 1 has 0"),
        (2, [44, -1], "layers of each stage is 44,-1; wanted at least one layer in each; stage 1 has -1"),
        (2, [43], "layers of each stage is 43; wanted 2 numbers, one for each stage (pp=2)"),
        (2, [21, 21], "layers of each stage is 21,21; wanted a sum of 43, the model's layers, not 42"),
    ],
)
def test_a_stage_with_no_layers_is_an_error(stages, sizes, text):
    """A split that leaves a stage empty, or does not fit the model or the world, says which numbers are wrong."""
    with pytest.raises(PlanError) as caught:
        layer_slices(43, stages, sizes)
    assert str(caught.value) == text
    options = PlanOptions(stage_layers=None if sizes is None else tuple(sizes))
    with pytest.raises(PlanError) as caught:
        plan_pools(V4, World(pp=stages), GIB, options)
    assert str(caught.value) == text


@examples(deadline=None)
@given(
    geometry=st.sampled_from([V32, GLM, V4]),
    pp=st.integers(1, 7),
    draft_layers=st.integers(0, 2),
    data=st.data(),
)
def test_the_stages_sum_to_the_whole(geometry, pp, draft_layers, data):
    """With equal tokens, bytes, layers and costs of all stages, even or not, are those of a pipeline of one stage."""
    cuts = [data.draw(st.integers(1, geometry.layers // pp)) for _ in range(pp - 1)]
    sizes = (*cuts, geometry.layers - sum(cuts))
    speculation = {"draft_tokens": 2, "draft_layers": draft_layers}
    options = {**speculation, "max_tokens": 25_600, "max_running_requests": 32}
    memory = 200 * GIB
    whole = plan_pools(geometry, World(), memory, PlanOptions(**options))
    split = plan_pools(geometry, World(pp=pp), memory, PlanOptions(**options, stage_layers=sizes))
    assert split.tokens == whole.tokens == 25_600
    assert sum(stage.bytes for stage in split.stages) == whole.ranks[0].bytes == split.total_bytes
    assert sum(stage.exact_bytes_per_token for stage in split.stages) == whole.ranks[0].exact_bytes_per_token
    assert split.bytes_per_token == whole.bytes_per_token == whole.ranks[0].bytes_per_token
    for pool in whole.ranks[0].pools:
        parts = [part for stage in split.stages for part in stage.pools if part.name == pool.name]
        assert tuple(layer for part in parts for layer in part.layers) == pool.layers
        assert {(part.tokens, part.page_bytes) for part in parts} == {(pool.tokens, pool.page_bytes)}


def test_memory_of_each_rank():
    """The rank with least room decides for all; each says what it may take, what would fit there and what is left."""
    memory = [20 * GIB, 20 * GIB, 20 * GIB, 15 * GIB]
    plan = plan_pools(V32, World(pp=2, tp=2), memory)
    assert plan.limiting is plan.ranks[3]
    assert [rank.memory_bytes for rank in plan.ranks] == memory
    alone = [plan_pools(V32, World(pp=2, tp=2), it).stages for it in memory]
    assert [it.fits_tokens for it in plan.ranks] == [alone[rank][rank // 2].fits_tokens for rank in range(4)]
    assert plan.tokens == plan.ranks[3].fits_tokens
    assert plan.ranks[2].bytes == plan.ranks[3].bytes
    assert plan.ranks[2].free_bytes == plan.ranks[3].free_bytes + 5 * GIB
    assert plan.ranks[2].terms[-1].value == plan.ranks[2].free_bytes
    same = plan_pools(V32, World(pp=2, tp=2), [20 * GIB, 15 * GIB])
    assert [it.memory_bytes for it in same.ranks] == [20 * GIB, 20 * GIB, 15 * GIB, 15 * GIB]


def test_the_equation_says_that_another_rank_has_less():
    """With one stage too, where ranks were given memory each."""
    plan = plan_pools(V32, World(tp=2), [20 * GIB, 15 * GIB])
    (term,) = [it for it in plan.ranks[0].terms if it.name == "tokens"]
    assert (term.value, term.numbers) == (plan.tokens, "least of 2 ranks")
    assert [it for it in plan.ranks[1].terms if it.name == "tokens"] == []


def test_what_pools_may_take_of_a_device():
    """With weights alone on it what `dsa plan` computes from their size; what is reusable counts as free."""
    total, weights = 80 * GIB, 30 * GIB
    assert pool_bytes(MemoryReading(total, total - weights), USUAL_FRACTION) == total * 9 // 10 - weights
    assert pool_bytes(MemoryReading(total, 10 * GIB, 40 * GIB), Fraction(1)) == 50 * GIB
    with pytest.raises(
        PlanError, match=r"taken already is 10; wanted fewer than the 20 x 0\.5 = 10 of the device that"
    ):
        pool_bytes(MemoryReading(20, 10), Fraction(1, 2))


def test_the_stage_with_least_room_decides():
    """All ranks hold the tokens that fit on every one: uneven layers or memory leave the others with free bytes."""
    plan = plan_pools(V32, World(pp=2), 20 * GIB, PlanOptions(stage_layers=(50, 11)))
    crowded, roomy = plan.stages
    assert crowded.fits_tokens == crowded.tokens == roomy.tokens == plan.tokens < roomy.fits_tokens
    assert plan.limiting is plan.ranks[0]
    assert crowded.free_bytes < 64 * 788 * 50 <= roomy.free_bytes
    [note] = [note for note in plan.notes if "least room" in note]
    assert note.startswith("Stage 0 has least room: others could hold up to ")
    unequal = plan_pools(V32, World(pp=2), [20 * GIB, 3 * GIB])
    assert [stage.memory_bytes for stage in unequal.stages] == [20 * GIB, 3 * GIB]
    assert unequal.limiting.place.pp == 1


@pytest.mark.parametrize(
    ("world", "places"),
    [
        (World(), [(0, 0, 0, 0, 0)]),
        (World(tp=2, pp=2), [(0, 0, 0, 0, 0), (1, 0, 0, 0, 1), (2, 1, 0, 0, 0), (3, 1, 0, 0, 1)]),
        (World(tp=4, dp=2, cp=2), [(0, 0, 0, 0, 0), (1, 0, 0, 1, 0), (2, 0, 1, 0, 0), (3, 0, 1, 1, 0)]),
        (World(dp=2, cp=1), [(0, 0, 0, 0, 0), (1, 0, 1, 0, 0)]),
    ],
)
def test_places_of_processes(world, places):
    """Numbers go by stage, then dp, cp and tp; dp and cp divide a stage's tp processes, or make them up without tp."""
    assert [(it.rank, it.pp, it.dp, it.cp, it.tp) for it in world.places()] == places
    assert world.ranks == len(places)
    assert world.stage_ranks * world.pp == world.ranks
    assert world.attention_tp * world.dp * world.cp == world.stage_ranks


def test_what_is_replicated_and_what_is_split():
    """The latent is the same on each tp; dp groups have requests of their own; cp parts hold a request together."""
    plans = {
        sizes: plan_pools(V32, World(*sizes), 20 * GIB)
        for sizes in ((1, 1, 1, 1), (8, 1, 1, 1), (8, 1, 4, 1), (8, 1, 1, 2))
    }
    alone = plans[1, 1, 1, 1]
    for (tp, _, dp, cp), plan in plans.items():
        assert plan.tokens == alone.tokens
        assert {rank.bytes for rank in plan.ranks} == {alone.ranks[0].bytes}
        assert plan.total_bytes == tp * alone.total_bytes
        assert (plan.request_tokens, plan.total_tokens) == (alone.tokens * cp, alone.tokens * cp * dp)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"tp": 0}, "tp is 0; wanted an integer of at least 1"),
        ({"pp": -1}, "pp is -1; wanted an integer of at least 1"),
        ({"dp": True}, "dp is True; wanted an integer of at least 1"),
        ({"cp": 1.5}, "cp is 1.5; wanted an integer of at least 1"),
        (
            {"tp": 8, "dp": 3},
            f"dp * cp is 3; wanted a divisor of tp=8, {WHY}",
        ),
        ({"tp": 2048, "pp": 33}, "number of processes is 67584; wanted at most 65536"),
        (
            {"tp": 4, "dp": 4, "cp": 2},
            f"dp * cp is 8; wanted a divisor of tp=4, {WHY}",
        ),
    ],
)
def test_worlds_that_cannot_be(sizes, text):
    """Sizes that are no counts, or groups that do not divide a stage, are named with what is allowed."""
    with pytest.raises(PlanError) as caught:
        World(**sizes)
    assert str(caught.value) == text


def test_a_place_is_a_value():
    """Two processes with the same coordinates are the same place."""
    assert World(tp=2).places()[1] == Place(rank=1, pp=0, dp=0, cp=0, tp=1)
