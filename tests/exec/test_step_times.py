"""What a stage takes by its parts, calculated once more by hand: products, communication, shares of the indexer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import dsa_exec
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_world import World
from dsa_exec.planning.kernel_terms import Work
from dsa_exec.planning.kernel_times import kernel_times
from dsa_exec.planning.machine import machine
from dsa_exec.planning.model_weights import weights_of
from dsa_exec.planning.stages import stages_of
from dsa_exec.planning.step_times import Model, output_bytes
from dsa_exec.runtime.distributed.attention_in_group import _room

CONFIG = json.loads((Path(dsa_exec.__file__).parents[1] / "examples" / "plan" / "deepseek_v32.json").read_text())
GEOMETRY = geometry_of(CONFIG, "v32")
MODEL = Model(GEOMETRY, weights_of(CONFIG, GEOMETRY), kernel_times(), machine())
((STAGE,), _) = stages_of(GEOMETRY, MODEL.weights, 1, PlanOptions())

HIDDEN, HEADS, EXPERTS, CHOSEN = 7168, 128, 256, 8
QUERY = 7168 * 1536 + 7168 * 576
BY_HEADS = 128 * (1536 * 192 + 512 * 256 + 128 * 7168)
INDEXER = 1536 * 64 * 128 + 7168 * (128 + 64)
EXPERT, DENSE, HEAD = 3 * 7168 * 2048, 3 * 7168 * 18432, 129_280 * 7168
ALWAYS = EXPERT + 7168 * 256


def product(weights, tokens):
    """A byte a weight at 60 % of 3350 GB/s, two operations a weight and token at 60 % of 1979 TFLOPS."""
    return max(weights / 3350e9, 2 * tokens * weights / 1979e12) / 0.6 * 1e6


def link(bytes_, nodes=1):
    return 10 + bytes_ / 329e9 * 1e6 if nodes == 1 else 25 + bytes_ / 50e9 * 1e6


def test_products_of_a_decode_step():
    """16 requests in each of 8 groups of 2 ranks: heads are halved, experts are those that 128 tokens choose."""
    world, requests = World(tp=16, dp=8), 16
    read = 1 - (1 - CHOSEN / EXPERTS) ** (requests * 8)
    experts = max(
        product((EXPERTS * EXPERT * read + ALWAYS) / 16, 0),
        2 * requests * 8 * (CHOSEN * EXPERT + ALWAYS) / 16 / 1979e12 / 0.6 * 1e6,
    )
    wanted = 61 * (product(QUERY + BY_HEADS / 2, requests) + product(INDEXER, requests))
    wanted += 3 * product(DENSE / 16, requests * 8) + 58 * experts
    wanted += max(2 * HEAD / 16 / 3350e9, 2 * requests * 8 * 2 * HEAD / 16 / 1979e12) / 0.6 * 1e6
    assert MODEL.decode(world, STAGE, requests, 65536).products == pytest.approx(wanted)


def test_communication_of_a_decode_step():
    """Candidates and outputs of 2 parts of the context, a sum over 2 ranks, and experts over two nodes of 8."""
    world, requests = World(tp=16, dp=4, cp=2), 64
    candidates = link(requests * 2048 * 8)
    outputs = link(requests * HEADS // 2 * 1040)
    total = link(requests * HIDDEN * 2)
    copies = requests / 4 * CHOSEN * HIDDEN
    experts = link(copies / 2, 2) + link(copies * 2 / 2, 2) + link(3 / 4 * requests * HIDDEN * 2)
    # Each of the two ranks selects for half of the requests, and they gather what was selected.
    gathered = link(requests * 2048 * 4 / 2)
    wanted = 61 * (outputs + total + experts + candidates + gathered)
    step = MODEL.decode(world, STAGE, requests, 65536)
    dealt = MODEL.kernels.us("index_select decode", Work(requests / 2, 32768, 64))
    merge = MODEL.kernels.us("topk", Work(requests, 4096, 0))
    assert step.communication == pytest.approx(wanted)
    assert step.indexer == pytest.approx(61 * (dealt + merge))
    assert step.attention == pytest.approx(61 * MODEL.kernels.us("sparse_mla_decode", Work(requests, 1024, 64)))
    assert step.other == 61 * 15
    assert step.us == pytest.approx(step.indexer + step.attention + step.products + step.communication + step.other)


@pytest.mark.parametrize("latent", [512, 500])
def test_outputs_are_counted_as_ranks_send_them(latent):
    """What `attention_in_group` makes room for, of a bf16 row and head."""
    room = _room(torch.empty(1, 1, latent, dtype=torch.bfloat16), 1, 1)
    assert output_bytes(latent) == room.nbytes


def test_rows_of_the_indexer_are_dealt_out_where_that_is_faster():
    """A prefill's rows on 8 ranks: an eighth each, and the selected indices gathered."""
    world = World(tp=8)
    chunk = MODEL.prefill(world, STAGE, 8192, 131072)
    share = MODEL.kernels.us("index_select prefill", Work(1024, 131072 - (8192 - 1024) / 2, 64))
    assert chunk.indexer == pytest.approx(61 * share)
    gathered, total = link(7 / 8 * 8192 * 2048 * 4), link(2 * 7 / 8 * 8192 * HIDDEN * 2)
    assert chunk.communication == pytest.approx(61 * (gathered + 2 * total))


def test_rows_that_are_few_are_done_by_every_rank():
    """Two requests of 8K tokens: the gather would take longer than what it spares."""
    step = MODEL.decode(World(tp=8), STAGE, 2, 8192)
    assert step.indexer == pytest.approx(61 * MODEL.kernels.us("index_select decode", Work(2, 8192, 64)))
    assert step.communication == pytest.approx(61 * 2 * link(2 * 7 / 8 * 2 * HIDDEN * 2))


def test_a_prefill_in_parts_of_the_context():
    """Rows are dealt to 4 ranks, which gather all keys and cached tokens; only the last token has logits."""
    chunk = MODEL.prefill(World(tp=4, cp=4), STAGE, 8192, 65536)
    keys, tokens = link(3 / 4 * 65536 * 132), link(3 / 4 * 65536 * 656)
    experts = link(3 / 4 * 2048 * CHOSEN * HIDDEN) + link(3 / 4 * 2048 * CHOSEN * HIDDEN * 2)
    assert chunk.communication == pytest.approx(61 * (keys + tokens + experts))
    assert chunk.attention == pytest.approx(61 * MODEL.kernels.us("sparse_mla_prefill", Work(2048, 2048, 128)))
    more = dataclasses.replace(STAGE, is_last=False)
    head = 2 * HEAD / 4 / 3350e9 / 0.6 * 1e6
    assert chunk.products - MODEL.prefill(World(tp=4, cp=4), more, 8192, 65536).products == pytest.approx(head)


@pytest.mark.parametrize(("world", "nodes"), [(World(tp=4, pp=2), 1), (World(tp=8, pp=2), 2)])
def test_stages_send_over_nvlink_only_within_a_node(world, nodes):
    """Each rank sends its share of the tokens to the next stage."""
    stages, _ = stages_of(GEOMETRY, MODEL.weights, 2, PlanOptions())
    last = stages[-1]
    one = MODEL.decode(World(tp=world.tp), last, 32, 65536)
    two = MODEL.decode(world, last, 32, 65536)
    sent = 32 * HIDDEN * 2 / world.tp
    assert two.communication - one.communication == pytest.approx(link(sent, nodes))
