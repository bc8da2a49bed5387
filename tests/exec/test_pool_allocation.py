"""Pools take what is planned, to the byte, on the CPU and on a device; a plan of something else is refused."""

from __future__ import annotations

import dataclasses
import gc
import logging

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from model_configs import DEEPSEEK_V4_FLASH, DEEPSEEK_V32, GLM_5, V4_RATIOS, with_layers

import dsa_exec
from dsa_config import TooLate, settings
from dsa_exec.caches import pool_slice
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.caches.pools import allocate_pools
from dsa_exec.core.errors import LayoutError, PlanError
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.core.vendors import Missing
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_pools import plan_pools
from dsa_exec.memory.plan_world import Place, World

MIB = 2**20
CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GIB = 2**30

V32 = geometry_of(with_layers(DEEPSEEK_V32, 3), "v32/config.json")
GLM = geometry_of({**with_layers(GLM_5, 6), "index_topk_freq": 2}, "glm/config.json")
V4 = geometry_of(with_layers(DEEPSEEK_V4_FLASH, 7), "v4/config.json")

PLANS = {
    "V3.2": (V32, World(), {}),
    "V3.2, bf16": (V32, World(), {"kv": "bf16"}),
    "V3.2, fp8-raw": (V32, World(), {"kv": "fp8-raw"}),
    "GLM with shared indexers, two stages, drafts": (GLM, World(tp=2, pp=2), {"draft_tokens": 2}),
    "V4": (V4, World(), {"max_running_requests": 8}),
    "V4, two uneven stages, drafts": (
        V4,
        World(pp=2, dp=2),
        {"max_running_requests": 8, "draft_tokens": 3, "stage_layers": (3, 4)},
    ),
    "V4, pages of 128": (V4, World(), {"max_running_requests": 8, "page_tokens": 128}),
    "V4, bf16": (V4, World(), {"max_running_requests": 8, "kv": "bf16", "c4_state_bytes": 2, "c128_state_bytes": 2}),
    "V4, fp8-raw, fp4 keys, online": (
        V4,
        World(),
        {"max_running_requests": 8, "kv": "fp8-raw", "index_k": "fp4", "online_c128": True, "draft_tokens": 2},
    ),
}


@pytest.fixture(autouse=True)
def _slices_are_told_anew():
    pool_slice.forget_slices()
    yield
    pool_slice.forget_slices()


@pytest.mark.device
@pytest.mark.parametrize("name", PLANS)
def test_allocated_bytes_are_the_planned_ones(name):
    """Each pool of each stage takes its planned bytes exactly; on a GPU its allocator was asked for no more."""
    geometry, world, options = PLANS[name]
    plan = plan_pools(geometry, world, 64 * MIB, PlanOptions(**options))
    for rank in plan.stages:
        gc.collect()
        before = device_bytes()
        pools = allocate_pools(plan, geometry, rank.place, device=DEVICE)
        assert [(it.pool.name, it.bytes) for it in pools.pools] == [(pool.name, pool.bytes) for pool in rank.pools]
        assert pools.bytes == rank.bytes <= rank.memory_bytes
        tensors = [tensor for it in pools.pools for tensor in it.tensors]
        assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
        assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) == rank.bytes
        assert {tensor.device.type for tensor in tensors} == {DEVICE.type}
        check_growth(before, tensors)
        del pools, tensors


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("config", "options"),
    [
        (DEEPSEEK_V32, {}),
        (GLM_5, {"kv": "bf16", "draft_tokens": 2}),
        (DEEPSEEK_V4_FLASH, {"max_running_requests": 128}),
    ],
    ids=["V3.2", "GLM-5", "V4-Flash"],
)
def test_a_whole_model_takes_what_is_planned(config, options):
    """40 GiB for the pools of a published model: the device gives out the planned bytes, and nothing else is made."""
    geometry = geometry_of(config, "config.json")
    plan = plan_pools(geometry, World(), 40 * GIB, PlanOptions(**options))
    gc.collect()
    torch.cuda.empty_cache()
    before = device_bytes()
    pools = allocate_pools(plan, geometry, plan.ranks[0].place, device=DEVICE)
    assert pools.bytes == plan.ranks[0].bytes <= 40 * GIB
    check_growth(before, [tensor for it in pools.pools for tensor in it.tensors])


def device_bytes():
    """What tensors have asked the GPU's allocator for, and what it has given them."""
    if DEVICE.type != "cuda":
        return 0, 0
    stats = torch.cuda.memory_stats(DEVICE)
    return stats["requested_bytes.all.current"], stats["allocated_bytes.all.current"]


def check_growth(before, tensors):
    """What was asked for is what the tensors hold. The allocator rounds up: a small tensor to a multiple of 512 bytes;
    of a large one it also gives a rest of at most 1 MiB that is not worth a block of its own.
    """
    if DEVICE.type != "cuda":
        return
    requested, given = (now - then for now, then in zip(device_bytes(), before, strict=True))
    assert requested == sum(tensor.nbytes for tensor in tensors)
    rounding = sum(512 if tensor.nbytes < MIB else 512 + MIB for tensor in tensors)
    assert requested <= given <= requested + rounding


@examples(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(
    model=st.sampled_from([DEEPSEEK_V32, GLM_5, DEEPSEEK_V4_FLASH]),
    layers=st.integers(1, 4),
    pages=st.integers(1, 3),
    kv=st.sampled_from(["fp8", "bf16", "fp8-raw"]),
    draft_tokens=st.integers(0, 3),
    memory=st.integers(24 * MIB, 48 * MIB),
)
def test_allocation_follows_any_plan(model, layers, pages, kv, draft_tokens, memory):
    """Whatever is planned, what is allocated is not a byte more or less, and zeroed."""
    geometry = geometry_of(with_layers(model, layers), "config.json")
    page = 128 * pages if geometry.compressed else 32 * pages
    options = PlanOptions(kv=kv, page_tokens=page, draft_tokens=draft_tokens, max_running_requests=1)
    plan = plan_pools(geometry, World(), memory, options)
    pools = allocate_pools(plan, geometry, plan.ranks[0].place, device=CPU)
    assert [it.bytes for it in pools.pools] == [pool.bytes for pool in plan.ranks[0].pools]
    assert not any(tensor.any() for it in pools.pools for tensor in it.tensors)


def pools_of(geometry, options=None, device=CPU, **keys):
    plan = plan_pools(geometry, World(), 32 * MIB, options or PlanOptions(max_running_requests=4))
    return allocate_pools(plan, geometry, plan.ranks[0].place, device=device, **keys)


def test_mla_models_get_the_caches_that_ops_take():
    """A cache for each layer, with the planned pages and the extra one, in the plan's format and not the settings'."""
    with settings.override(kv_format="model", index_k_format="model"):
        pools = pools_of(V32)
    assert [type(it) for it in pools.pools[0].caches] == [MlaCache] * 3
    assert [type(it) for it in pools.pools[1].caches] == [IndexKCache] * 3
    kv, keys = pools.cache("mla_kv", 2), pools.cache("index_k", 2)
    assert (kv.layout.format, keys.layout.format) == ("fp8", "fp8")
    assert kv.slots == keys.slots == pools.plan.tokens + 64
    assert kv.layout == pools.plan.pool("mla_kv").layout
    half = pools_of(V32, PlanOptions(kv="bf16")).cache("mla_kv", 0)
    assert (half.data.dtype, half.data.shape[1]) == (torch.bfloat16, 576)
    raw = pools_of(V32, PlanOptions(kv="fp8-raw")).cache("mla_kv", 0)
    assert (raw.dtype, raw.shape[1]) == (torch.uint8, 576)


@pytest.mark.device
def test_ops_write_and_read_planned_caches():
    """Keys and tokens that are stored in a planned cache come back from it, in its last page too."""
    pools = pools_of(V32, device=DEVICE)
    slots = torch.tensor([0, 65, pools.plan.tokens - 1, pools.plan.tokens + 63], device=DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(5)
    keys = torch.randn(4, 128, device=DEVICE, generator=generator).to(torch.bfloat16)
    dsa_exec.index_store(pools.cache("index_k", 1), keys, slots)
    pages = (slots // 64)[None].to(torch.int32)
    lens = torch.tensor([4 * 64], dtype=torch.int32, device=DEVICE)
    stored, scales = dsa_exec.index_gather(pools.cache("index_k", 1), pages, lens, 256)
    rows = torch.arange(4, device=DEVICE) * 64 + slots % 64
    read = stored[rows].float() * scales[rows, None]
    assert torch.allclose(read, keys.float(), rtol=0.07, atol=0.02)


def test_only_layers_with_indexers_of_their_own_have_index_keys():
    """GLM with every second indexer shared: the others have no cache, and asking for one is a KeyError."""
    pools = pools_of(GLM)
    own = [layer for layer in range(6) if GLM.own_indexers[layer]]
    assert list(pools.plan.pool("index_k").layers) == own
    shared = next(layer for layer in range(6) if layer not in own)
    with pytest.raises(KeyError, match="index_k"):
        pools.cache("index_k", shared)
    with pytest.raises(KeyError, match="swa_kv"):
        pools.cache("swa_kv", 0)


def test_v4_tensors():
    """Padded pages of bytes, index keys as caches of their own pages, and rows of state."""
    pools = pools_of(V4)
    pages = {pool.name: pool.pages for pool in pools.plan.pools}
    assert pools.cache("swa_kv", 0).shape == (pages["swa_kv"], 74880)
    assert pools.cache("c4_kv", 2).shape == (pages["c4_kv"], 37440)
    assert pools.cache("c128_kv", 3).shape == (pages["c128_kv"], 1728)
    keys = pools.cache("c4_index_k", 2)
    assert isinstance(keys, IndexKCache)
    assert keys.data.shape == (pages["c4_index_k"], 8448)
    assert pools.cache("c4_state", 2).shape == (pages["c4_state"], 8, 2048)
    assert pools.cache("c4_index_state", 2).shape == (pages["c4_index_state"], 8, 512)
    assert pools.cache("c128_state", 3).shape == (pages["c128_state"], 128, 1024)
    assert pools.cache("c128_state", 3).dtype == torch.float32


def test_how_keys_are_made_is_carried():
    """Rounded scales and rotated keys are in the layout of every index-K cache, and cost no byte."""
    for geometry, name, layer in ((V32, "index_k", 0), (V4, "c4_index_k", 2)):
        plain, other = pools_of(geometry), pools_of(geometry, pow2_scale=True, hadamard=True)
        layout = other.cache(name, layer).layout
        assert (layout.pow2_scale, layout.hadamard) == (True, True)
        assert (plain.cache(name, layer).layout.pow2_scale, plain.bytes) == (False, other.bytes)


def test_pages_that_no_kernel_of_the_device_takes():
    """On CUDA index keys of MLA models have pages of 64, on ROCm without aiter of 1: another plan is refused."""
    missing = {name: Missing(name, f"no {name}") for name in ("deep_gemm", "flash_mla", "aiter")}
    nvidia = Capabilities("cuda", "sm90", "2.11", "3.6", vendors=missing)
    amd = Capabilities("cuda", "gfx942", "2.11", "3.6", is_hip=True, vendors=missing)
    with assumed(nvidia):
        assert pools_of(V32).cache("index_k", 0).layout.page_tokens == 64
        with pytest.raises(LayoutError, match="plain pages of 32; wanted plain pages of 64 on sm90"):
            pools_of(V32, PlanOptions(page_tokens=32))
    with assumed(amd):
        with pytest.raises(LayoutError, match="page size is 64; wanted 1 token for plain pages on gfx942"):
            pools_of(V32)
        cache = pools_of(V32, PlanOptions(page_tokens=1)).cache("index_k", 0)
        assert (cache.layout.page_tokens, cache.layout.unsigned_zero) == (1, True)


def test_allocation_is_a_moment_of_the_settings():
    """After it a change of a setting that waits for allocation is reported as too late, while a cache is there."""
    pools = pools_of(V32)
    cache = pools.cache("index_k", 0)
    del pools
    with pytest.warns(TooLate, match="pools of .* tokens were allocated"):
        settings.set(kv_format="model")
    del cache
    settings.set(kv_format="fp8")


def test_a_plan_of_another_model_is_refused():
    """The error names what differs, on both sides, and both files; where the file lies does not matter."""
    plan = plan_pools(V4, World(), 32 * MIB, PlanOptions(max_running_requests=4))
    moved = geometry_of(with_layers(DEEPSEEK_V4_FLASH, 7), "elsewhere/config.json")
    assert allocate_pools(plan, moved, plan.ranks[0].place, device=CPU).bytes == plan.ranks[0].bytes
    other = dataclasses.replace(moved, window_tokens=256, compress_ratios=(0,) * 7)
    with pytest.raises(PlanError) as caught:
        allocate_pools(plan, other, plan.ranks[0].place, device=CPU)
    error = caught.value
    assert error.what == "model of the plan (v4/config.json)"
    assert error.got == "compress_ratios 7 entries (2 of 0, 3 of 4, 2 of 128), window_tokens 128"
    assert error.wanted == "compress_ratios 7 entries (7 of 0), window_tokens 256, as in elsewhere/config.json"
    drafting = dataclasses.replace(moved, draft_compress_ratios=(4,))
    with pytest.raises(PlanError, match=r"draft_compress_ratios no entries; wanted draft_compress_ratios 1 entries"):
        allocate_pools(plan, drafting, plan.ranks[0].place, device=CPU)


def test_a_plan_of_another_place_is_refused():
    """A process that the plan does not have, or that stands elsewhere in it, gets no pools."""
    plan = plan_pools(V4, World(tp=2, pp=2), 32 * MIB, PlanOptions(max_running_requests=4))
    for place in (Place(rank=4, pp=2, dp=0, cp=0, tp=0), Place(rank=1, pp=1, dp=0, cp=0, tp=0)):
        with pytest.raises(PlanError) as caught:
            allocate_pools(plan, V4, place, device=CPU)
        assert str(caught.value) == (
            f"place of this process is rank={place.rank}, pp={place.pp}, dp=0, cp=0, tp=0; "
            "wanted one of the 4 places of tp=2, pp=2, dp=1, cp=1"
        )


@pytest.mark.parametrize("sizes", [(4, 3), (1, 6), (6, 1), None])
def test_T38_pools_have_the_layers_that_are_planned(sizes):
    """T38: planner and pools slice the same layers, with a list that has the draft layer's entry and without it."""
    for ratios in (V4_RATIOS[:7], [*V4_RATIOS[:7], 0]):
        geometry = geometry_of({**DEEPSEEK_V4_FLASH, "num_hidden_layers": 7, "compress_ratios": ratios}, "c")
        options = PlanOptions(max_running_requests=4, stage_layers=sizes)
        plan = plan_pools(geometry, World(pp=2), 32 * MIB, options)
        for stage in plan.stages:
            pools = allocate_pools(plan, geometry, stage.place, device=CPU)
            for layer in range(8):
                for name, ratio in (("swa_kv", None), ("c4_kv", 4), ("c128_kv", 128)):
                    has = layer in stage.slice.layers and ratio in (None, V4_RATIOS[layer])
                    found = name in [it.pool.name for it in pools.pools] and layer in stage.pool(name).layers
                    assert has == found
                    assert not found or pools.cache(name, layer).shape[0] == stage.pool(name).pages


def test_T43_every_stage_tells_its_layers_once(caplog):
    """T43: one line of information for each stage, with an end that is not in the range and so a round bracket."""
    plan = plan_pools(V4, World(tp=2, pp=2), 32 * MIB, PlanOptions(max_running_requests=4, draft_tokens=2))
    with caplog.at_level(logging.INFO, logger="dsa_exec"):
        for rank in plan.ranks:
            allocate_pools(plan, V4, rank.place, device=CPU)
    assert [(it.levelname, it.getMessage()) for it in caplog.records] == [
        ("INFO", "DSV4 pool PP slice: rank=0 layers=[0,4) local=4/7"),
        ("INFO", "DSV4 pool PP slice: rank=1 layers=[4,7) local=3/7"),
    ]


def test_T43_without_a_pipeline_nothing_is_told(caplog):
    """T43: with one stage there is no line; another model's line does not call it DSV4."""
    with caplog.at_level(logging.INFO, logger="dsa_exec"):
        pools_of(V4)
        assert not caplog.records
        plan = plan_pools(V32, World(pp=3), 32 * MIB)
        allocate_pools(plan, V32, plan.stages[2].place, device=CPU)
    assert [it.getMessage() for it in caplog.records] == ["MLA pool PP slice: rank=2 layers=[2,3) local=1/3"]
