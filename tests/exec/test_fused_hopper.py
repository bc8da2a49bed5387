"""The fused kernel for Hopper selects what logits and top-k apart select, to the bit; it runs on such a GPU alone."""

from __future__ import annotations

import random

import pytest
import torch

from dsa_config import settings
from dsa_exec import GatheredKeys, index_select
from dsa_exec.core.numerics import E4M3

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs Hopper"
    ),
]
K = 2048


def made(seed, windows, key_count, heads=64, kind="ordinary"):
    """Arguments of `index_select`; scores of a kind that defeats shortcuts."""
    generator = torch.Generator("cuda").manual_seed(seed)
    rows = len(windows)

    def normal(*shape):
        return torch.randn(*shape, device="cuda", generator=generator)

    def whole(*shape):
        return torch.randint(-1, 2, shape, device="cuda", generator=generator).float()

    q, keys, weights = normal(rows, heads, 128), normal(key_count, 128), normal(rows, heads)
    scales = torch.rand(key_count, device="cuda", generator=generator) + 0.5
    at = torch.arange(key_count, device="cuda")
    if kind == "ties":
        q, keys, weights, scales = whole(rows, heads, 128), whole(key_count, 128), weights.round(), scales.round()
    elif kind != "ordinary":
        q, keys, weights = q.abs(), torch.ones_like(keys), weights.abs()
        scales = {
            "all equal": torch.ones_like(scales),
            "rising": at.float(),
            "falling": key_count - at.float(),
            "99 % zero": torch.where(scales < 0.51, scales, 0.0),
            "all negative": -scales,
            "a narrow range": 1 + scales * 1e-3,
            "infinite": torch.where(at % 7 == 0, torch.inf, torch.where(at % 5 == 0, -torch.inf, scales)),
            "no number": torch.where(at % 7 == 0, torch.nan, scales),
        }[kind]
    starts, ends = (torch.tensor(bounds, dtype=torch.int32, device="cuda") for bounds in zip(*windows, strict=True))
    return q.to(E4M3), weights, GatheredKeys(keys.to(E4M3), scales.contiguous(), starts, ends)


def by(backend, arguments, k, launch=""):
    with settings.override(index_select_backend=backend, kernel_launch=launch, mqa_logits_backend="gluon"):
        return index_select(*arguments, k).indices


def check_the_same(arguments, k=K, launch=""):
    """Twice the same as logits and top-k apart."""
    wanted = by("torch", arguments, k)
    assert torch.equal(by("gluon", arguments, k, launch), wanted)
    assert torch.equal(by("gluon", arguments, k, launch), wanted)


def causal(rows, key_count):
    return [(0, key_count - rows + row + 1) for row in range(rows)]


@pytest.mark.parametrize("heads", [32, 64])
@pytest.mark.parametrize(("rows", "key_count"), [(1, 2049), (16, 2050), (1021, 9001), (300, 70000), (4096, 4096)])
def test_prefill(rows, key_count, heads):
    """More rows than programs take at once, fewer, and rows that see no more than k keys."""
    check_the_same(made(rows, causal(rows, key_count), key_count, heads))


HARD = [
    "ties",
    "all equal",
    "rising",
    "falling",
    "99 % zero",
    "all negative",
    "a narrow range",
    "infinite",
    "no number",
]


@pytest.mark.parametrize("heads", [32, 64])
@pytest.mark.parametrize("kind", HARD)
def test_hard_scores(kind, heads):
    """Whatever fills a row's memory for candidates over and over, or leaves the search nothing to tell apart."""
    check_the_same(made(3, causal(70, 20000), 20000, heads, kind))


def test_windows_of_several_requests():
    """Rows of one program that see other keys: side by side, overlapping, apart, empty, in any order."""
    rng = random.Random(0)
    windows = [(start, min(start + rng.randrange(15000), 30000)) for start in rng.choices(range(20000), k=200)]
    windows += [(row // 50 * 10000, row // 50 * 10000 + 9900 + row % 50) for row in range(150)]
    for heads in (32, 64):
        check_the_same(made(5, windows, 30000, heads))


@pytest.mark.parametrize("launch", ["capacity=2688", "capacity=4096", "programs=7", "stages=2"])
def test_however_it_is_launched(launch):
    """The same positions."""
    check_the_same(made(7, causal(130, 20000), 20000), launch=f"index_select.gluon.{launch}")


def test_random_shapes():
    """A thousand: any rows, windows, keys, heads and numbers to select, with scores of every kind."""
    rng = random.Random(11)
    for number in range(1000):
        key_count = rng.choice([rng.randint(1, 300), rng.randint(1, 6000), rng.randint(1, 20000)])
        bounds = [sorted(rng.choices(range(key_count + 1), k=2)) for _ in range(rng.choice([1, 3, 5, 17, 64]))]
        kind = rng.choice(["ordinary", "ordinary", *HARD])
        arguments = made(number, bounds, key_count, rng.choice([32, 64]), kind)
        k = rng.choice([1, 5, 64, 512, 2048, 3000])
        assert torch.equal(by("gluon", arguments, k), by("torch", arguments, k)), (number, kind, k, key_count, bounds)


def test_a_graph_replays_it():
    """Its counter begins anew in each replay."""
    arguments = made(13, causal(600, 9000), 9000)
    wanted = by("torch", arguments, K)
    by("gluon", arguments, K)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        picked = by("gluon", arguments, K)
    for _ in range(3):
        picked.fill_(-7)
        graph.replay()
        assert torch.equal(picked, wanted)


def test_it_takes_no_more_memory_than_it_says():
    """32 MiB beside the result, whatever the context."""
    for key_count in (8192, 65536):
        arguments = made(17, causal(4096, key_count), key_count)
        by("gluon", arguments, K)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        picked = by("gluon", arguments, K)
        taken = torch.cuda.max_memory_allocated() - before
        assert picked.nbytes == 2**25
        assert taken <= 2**26
