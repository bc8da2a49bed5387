"""The simulator: weights and room of each split as the planner has them, times by hand, and the best split of all."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from pathlib import Path

import pytest

import dsa_exec
from dsa_exec.cli.plan.sweep_asked import CONTEXTS as ALL_CONTEXTS
from dsa_exec.cli.plan.sweep_asked import GPUS
from dsa_exec.core.errors import GeometryError, PlanError
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_pools import plan_pools
from dsa_exec.memory.plan_world import World
from dsa_exec.planning.kernel_times import kernel_times
from dsa_exec.planning.machine import Machine, machine
from dsa_exec.planning.model_weights import weights_of
from dsa_exec.planning.stages import stages_of
from dsa_exec.planning.step_times import Model
from dsa_exec.planning.sweep import _decode, _Fitting, prefill, splits, sweep

MODELS = Path(dsa_exec.__file__).parents[1] / "examples" / "plan"
GIB = 2**30
V32, GLM = (json.loads((MODELS / name).read_text()) for name in ("deepseek_v32.json", "glm_5.json"))
OPTIONS = PlanOptions()
CONTEXTS = (65536, 262144, 1048576)

FREE = Machine(
    nvlink_gb_s=math.inf,
    network_gb_s=math.inf,
    node_gpus=8,
    nvlink_us=0,
    network_us=0,
    hbm_gb_s=math.inf,
    fp8_tflops=math.inf,
    gemm_share=1,
    layer_us=0,
)
"""A machine on which nothing takes time but the kernels."""


@functools.cache
def model(name="deepseek_v32", machine_=None):
    config = json.loads((MODELS / f"{name}.json").read_text())
    geometry = geometry_of(config, name)
    return Model(geometry, weights_of(config, geometry), kernel_times(), machine_ or machine())


def all_weights(it):
    layers = range(it.geometry.layers)
    attention = it.weights.attention_whole + it.weights.attention_by_heads + it.weights.indexer
    experts = it.weights.experts * it.weights.expert + it.weights.always
    mlps = (it.weights.dense_mlp if it.weights.dense[layer] else experts for layer in layers)
    return sum(attention + mlp for mlp in mlps) + 2 * it.weights.vocabulary


@pytest.mark.parametrize(("name", "billions"), [("deepseek_v32", 671), ("glm_5", 744)])
def test_models_have_the_weights_that_are_published(name, billions):
    """DeepSeek-V3.2 671 billion, GLM-5 744."""
    assert all_weights(model(name)) / 1e9 == pytest.approx(billions, rel=0.003)


def test_absent_keys_are_told_and_wrong_ones_refused():
    """A configuration that lacks sizes of experts gets transformers' with a note; one with impossible ones an error."""
    (note,) = weights_of(V32, geometry_of(V32, "v32")).notes
    assert "v32 lacks keys, for which transformers' defaults count: intermediate_size 18432" in note
    whole = {**V32, "moe_intermediate_size": 1024, "first_k_dense_replace": 1}
    assert weights_of(whole, geometry_of(whole, "v32")).expert == 3 * 7168 * 1024
    assert sum(weights_of(whole, geometry_of(whole, "v32")).dense) == 1
    kinds = {**V32, "mlp_layer_types": ["dense", *["sparse"] * 60]}
    assert sum(weights_of(kinds, geometry_of(kinds, "v32")).dense) == 1
    for key, value in (("n_routed_experts", 0), ("num_experts_per_tok", 300), ("mlp_layer_types", ["other"] * 61)):
        wrong = {**V32, key: value}
        with pytest.raises(GeometryError, match=f"v32: {key} is .*; wanted "):
            weights_of(wrong, geometry_of(wrong, "v32"))


def test_a_model_without_measured_attention_is_refused():
    """DeepSeek-V4 has a plan and no sweep."""
    config = json.loads((MODELS / "deepseek_v4_flash.json").read_text())
    with pytest.raises(PlanError, match="model of a sweep is deepseek_v4; wanted one of deepseek_v32, glm_moe_dsa"):
        weights_of(config, geometry_of(config, "v4"))


@pytest.mark.parametrize("pp", [1, 2, 5])
@pytest.mark.parametrize("name", ["deepseek_v32", "glm_5"])
def test_room_is_that_of_the_planner(name, pp):
    """Tokens and bytes of the pools are those of `plan_pools`, exactly."""
    it = model(name)
    stages, page = stages_of(it.geometry, it.weights, pp, OPTIONS)
    plan = plan_pools(it.geometry, World(pp=pp), 20 * GIB + 12345, OPTIONS)
    tokens = min(stage.tokens(20 * GIB + 12345, page) for stage in stages)
    assert (page, tokens) == (plan.page_tokens, plan.tokens)
    assert {stage.pool_bytes(tokens, page) for stage in stages} == {rank.bytes for rank in plan.stages}
    assert min(stages, key=lambda stage: stage.layers).tokens(1000, page) == 0


def test_shares_of_weights_add_up():
    """With tensor parallelism alone ranks have the model together, and besides what each of them has whole."""
    it = model()
    world = World(tp=8)
    ((stage,), _) = stages_of(it.geometry, it.weights, 1, OPTIONS)
    whole = 7 * 61 * (it.weights.attention_whole + it.weights.indexer)
    shares = 8 * stage.weight_bytes(it.weights, world)
    assert 0 <= shares - (all_weights(it) + 2 * it.weights.vocabulary + whole) < 8 * 64
    grouped = stage.weight_bytes(it.weights, World(tp=8, dp=8))
    assert grouped - stage.weight_bytes(it.weights, world) == 61 * it.weights.attention_by_heads * 7 // 8


def test_every_split_is_looked_at_once():
    """All have so many GPUs, heads that divide evenly, and a layer in each stage."""
    found = list(splits(16, 61, 128))
    assert len(found) == len(set(found)) == 35
    assert {it.ranks for it in found} == {16}
    assert {128 % it.attention_tp for it in found} == {0}
    assert [it.pp for it in splits(62, 61, 128) if it.pp > 31] == []
    assert list(splits(7 * 3, 2, 1)) == [World(tp=21, dp=21 // cp, cp=cp) for cp in (1, 3, 7, 21)]


def test_a_step_by_hand():
    """On a machine without other costs a layer takes its kernels; requests, stages and cost follow."""
    it = model(machine_=FREE)
    (cell,) = sweep(it, 200 * GIB, [8], [65536], OPTIONS)
    assert cell.best is not None
    world = cell.best.world
    requests = cell.best.requests // world.dp // world.pp
    keys, heads = 65536 // world.cp, 128 // world.attention_tp
    decode, sparse = it.kernels.fits_us["index_select decode"], it.kernels.fits_us[f"sparse_mla_decode, {heads} heads"]
    share = -(-requests // world.attention_tp)
    layer = decode["call"] + decode["request"] * share + decode["key of the longest"] * keys
    layer += decode["key"] * share * keys
    layer += sparse["call"] + sparse["selected key"] * requests * 2048 / world.cp
    if world.cp > 1:
        merge = it.kernels.fits_us["topk"]
        layer += merge["call"] + requests * (merge["row"] + merge["key"] * world.cp * 2048)
    layers = -(-61 // world.pp)
    assert cell.best.step_us == pytest.approx(world.pp * layers * layer)
    assert cell.best.tokens_a_second == pytest.approx(cell.best.requests / cell.best.step_us * 1e6)
    assert cell.best.gpu_seconds_a_million == pytest.approx(8 * 1e6 / cell.best.tokens_a_second)


def test_a_prefill_by_hand():
    """Chunks of 8192 rows, each seeing what is before it; two stages do one chunk more than one has to."""
    it = model(machine_=FREE)
    stages, _ = stages_of(it.geometry, it.weights, 1, OPTIONS)
    fit, sparse = it.kernels.fits_us["index_select prefill"], it.kernels.fits_us["sparse_mla_prefill, 128 heads"]

    def layer(rows, end):
        pairs = sum(range(end - rows + 1, end + 1))
        index = fit["call"] + fit["row"] * rows + pairs * (fit["pair"] + 64 * fit["pair of a head"])
        return index + sparse["selected key"] * rows * 2048

    wanted = 61 * (layer(8192, 8192) + layer(8192, 16384) + layer(1000, 17384))
    whole_us, last = prefill(it, World(), stages, 17384)
    assert whole_us == pytest.approx(wanted)
    assert last.us == pytest.approx(61 * layer(1000, 17384))
    halves, _ = stages_of(it.geometry, it.weights, 2, OPTIONS)
    piped = 31 * (layer(8192, 8192) + layer(8192, 16384) + 2 * layer(1000, 17384))
    assert prefill(it, World(pp=2), halves, 17384)[0] == pytest.approx(piped)


@pytest.mark.parametrize("name", ["deepseek_v32", "glm_5"])
def test_what_is_found_fits_and_fills_the_memory(name):
    """On every stage weights and pools fit, and one page more would not on some; requests have whole pages."""
    it, static = model(name), 127 * GIB
    for cell in sweep(it, static, [16, 64], CONTEXTS, OPTIONS):
        best, world = cell.best, cell.best.world
        assert world.ranks == cell.gpus
        stages, page = stages_of(it.geometry, it.weights, world.pp, OPTIONS)
        left = [static - stage.weight_bytes(it.weights, world) for stage in stages]
        used, more = (
            [stage.pool_bytes(tokens, page) for stage in stages] for tokens in (best.tokens, best.tokens + page)
        )
        assert all(bytes_ <= room for bytes_, room in zip(used, left, strict=True))
        assert any(bytes_ > room for bytes_, room in zip(more, left, strict=True))
        assert best.pool_bytes == max(used)
        assert best.weight_bytes == static - min(left)
        part = -(-cell.context // world.cp)
        assert best.requests // world.dp * (-(-part // page) * page) <= best.tokens


@pytest.mark.parametrize("context", CONTEXTS)
def test_no_other_split_is_better(context, monkeypatch):
    """The best of 16 GPUs is the least cost among all splits, each looked at alone."""
    it = model()
    (best,) = sweep(it, 127 * GIB, [16], [context], OPTIONS)
    alone = []
    for world in splits(16, 61, 128):
        monkeypatch.setattr("dsa_exec.planning.sweep.splits", lambda *_, world=world: [world])
        (cell,) = sweep(it, 127 * GIB, [16], [context], OPTIONS)
        alone.append(math.inf if cell.best is None else cell.best.gpu_seconds_a_million)
    assert best.best.gpu_seconds_a_million == min(alone) < max(alone)


def test_more_never_costs_more():
    """More memory, faster links and shorter contexts."""
    it = model()
    cells = sweep(it, 127 * GIB, [16, 64], CONTEXTS, OPTIONS)
    faster = it._replace(machine=dataclasses.replace(machine(), network_gb_s=400, nvlink_gb_s=900))
    for other in (
        sweep(it, 140 * GIB, [16, 64], CONTEXTS, OPTIONS),
        sweep(faster, 127 * GIB, [16, 64], CONTEXTS, OPTIONS),
    ):
        for cell, better in zip(cells, other, strict=True):
            assert better.best.gpu_seconds_a_million <= cell.best.gpu_seconds_a_million
    for gpus in (16, 64):
        costs = [cell.best.gpu_seconds_a_million for cell in cells if cell.gpus == gpus]
        assert costs == sorted(costs)


def test_a_pipeline_with_fewer_requests_than_stages_is_idle():
    """A token takes all stages, whatever the number of requests: one request in four stages has a fourth of four."""
    it = model(machine_=FREE)
    stages, page = stages_of(it.geometry, it.weights, 4, OPTIONS)
    one, four = (_decode(it, _Fitting(World(pp=4), stages, page, 0, tokens * 65536), 65536) for tokens in (1, 4))
    assert (one[0], four[0]) == (1, 4)
    assert one[1] == four[1]
    assert _decode(it, _Fitting(World(pp=4), stages, page, 0, 65536 - page), 65536) is None


def test_where_nothing_fits_it_says_why():
    """Weights or the context, with what there is and what there would have to be."""
    it = model()
    weights, context = sweep(it, 72 * GIB, [8], [65536], OPTIONS) + sweep(it, 82 * GIB, [8], [2**24], OPTIONS)
    assert weights.best is context.best is None
    assert weights.why_not == "a GPU would have 79.9 GiB of weights at least, and has 72.0 GiB for weights and pools"
    assert context.why_not.startswith("a request can have ")
    assert int(context.why_not.split()[4]) < 2**24


def test_a_page_that_does_not_fit_beside_the_weights_is_the_reason():
    """The weights fit; pages so large do not."""
    (cell,) = sweep(model(), 72 * GIB, [16], [65536], PlanOptions(page_tokens=2**31 - 1))
    assert cell.best is None
    assert cell.why_not == "beside 40.8 GiB of weights or more there is no room for one page of tokens in 72.0 GiB"


def test_the_default_sweep_is_quick():
    """All numbers of GPUs with all contexts take less than five seconds of a processor."""
    began = time.process_time()
    assert len(sweep(model(), 127 * GIB, GPUS, ALL_CONTEXTS, OPTIONS)) == 40
    assert time.process_time() - began < 5
