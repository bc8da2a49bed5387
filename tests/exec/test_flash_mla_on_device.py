"""flash_mla itself, where it is installed on a device that it has kernels for."""

from __future__ import annotations

import importlib

import pytest
import torch

from dsa_config import settings
from dsa_exec import MlaCache, sparse_mla_decode, sparse_mla_prefill
from dsa_exec.caches.samples import random_mla_cache
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.dispatch.contract import picks
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.ops.sparse_mla_decode.contract import CONTRACT as DECODE
from dsa_exec.ops.sparse_mla_prefill.contract import CONTRACT as PREFILL

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SCALE = 576**-0.5
HEADS = (1, 8, 12, 16, 24, 48, 64, 96, 128)
CONTRACTS = {"sparse_mla_prefill": PREFILL, "sparse_mla_decode": DECODE}
OPS = pytest.mark.parametrize("op", CONTRACTS)


def attempt(op, backend, args):
    """What the op's contract judges of a call of one backend; the test is skipped if that refuses."""
    function = {"sparse_mla_prefill": sparse_mla_prefill, "sparse_mla_decode": sparse_mla_decode}[op]
    try:
        with settings.override(**{f"{op}_backend": backend}):
            out, lse = function(**args)
    except UnsupportedCall as refusal:
        pytest.skip(str(refusal))
    return {"out": out, "lse": lse}


def arguments(op, rows, heads, k, device, count=192, seed=0):
    """Fresh arguments, one row of which selects nothing."""
    generator = torch.Generator().manual_seed(seed)
    indices = picks(generator, rows, k, count)
    indices[0] = -1
    q = torch.randn(rows, heads, 576, generator=generator).bfloat16().to(device)
    if op == "sparse_mla_prefill":
        kv = torch.randn(count, 576, generator=generator).bfloat16().to(device)
        return {"q": q, "kv": kv, "indices": indices.to(device), "sm_scale": SCALE}
    cache = random_mla_cache(generator, MlaLayout(), count // 64, torch.device(device))
    return {"q": q, "cache": cache, "slots": indices.to(device), "sm_scale": SCALE}


@OPS
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("k", [64, 130])
def test_every_number_of_heads_agrees_with_the_oracle(op, heads, k):
    """Padded or not, with a row that selects nothing, and with indices that are no whole tiles."""
    got = attempt(op, "flash_mla", arguments(op, 3, heads, k, "cuda"))
    here = arguments(op, 3, heads, k, "cpu")
    wanted = importlib.import_module(f"oracles.{op}").oracle(**here, **({"d_v": 512} if "kv" in here else {}))
    case = next(it for it in CONTRACTS[op].cases if it.name == "bf16")
    assert CONTRACTS[op].judge(case, got, wanted, accelerated=True, backend="flash_mla") == []


@OPS
@pytest.mark.parametrize("numbers", [(-5, 2**31 - 1, -(2**31), 7, 10**6), (-2, 191, 192, -1)])
def test_hostile_indices_read_nothing(op, numbers):
    """They mean none, as the specification says; nothing is read out of bounds (compute-sanitizer agrees)."""
    args = arguments(op, 3, 16, 64, "cuda")
    name = "indices" if op == "sparse_mla_prefill" else "slots"
    hostile = torch.tensor(numbers, dtype=torch.int32, device="cuda").repeat(64)[: 3 * 64].view(3, 64)
    args[name].copy_(hostile)
    got, wanted = attempt(op, "flash_mla", args), attempt(op, "torch", args)
    case = next(it for it in CONTRACTS[op].cases if it.name == "bf16")
    assert CONTRACTS[op].judge(case, got, wanted, accelerated=True, backend="flash_mla") == []


@OPS
@pytest.mark.parametrize("heads", [16, 128])
@pytest.mark.parametrize("warm", [True, False])
def test_a_captured_graph_follows_its_arguments(op, heads, warm):
    """Captured once, with and without a call before it; replayed over other queries and ever more indices."""
    args = arguments(op, 4, heads, 256, "cuda", count=384)
    indices = args["indices" if op == "sparse_mla_prefill" else "slots"]
    if warm:
        attempt(op, "flash_mla", args)
    else:  # other shapes, so that kernels are loaded and nothing of these shapes is kept
        attempt(op, "flash_mla", arguments(op, 5, heads, 256, "cuda", count=384))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = attempt(op, "flash_mla", args)
    full = indices.clone()
    for seed, length in enumerate((1, 64, 129, 256)):
        args["q"].copy_(arguments(op, 4, heads, 256, "cuda", seed=seed, count=384)["q"])
        indices.copy_(full).masked_fill_(torch.arange(256, device="cuda") >= length, -1)
        attempt(op, "flash_mla", {**args, "q": args["q"] * 2})  # other work of the same shape between replays
        graph.replay()
        wanted = attempt(op, "flash_mla", args)
        assert torch.equal(got["out"], wanted["out"])
        assert torch.equal(got["lse"], wanted["lse"])
        assert not got["out"][0].any()
        assert got["lse"][0].isneginf().all()


@pytest.mark.parametrize("rows", [1500, 20000])
def test_many_rows_are_decoded_in_parts(rows):
    """More rows than the library's scheduler has room for: each is what it is alone."""
    args = arguments("sparse_mla_decode", rows, 16, 128, "cuda")
    got = attempt("sparse_mla_decode", "flash_mla", args)
    last = {**args, "q": args["q"][-3:], "slots": args["slots"][-3:]}
    alone = attempt("sparse_mla_decode", "flash_mla", last)
    torch.testing.assert_close(got["out"][-3:], alone["out"], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(got["lse"][-3:], alone["lse"], rtol=1e-3, atol=1e-3)
    assert not got["out"].isnan().any()


@pytest.mark.parametrize("heads", [16, 128])
def test_t26_the_last_slot_of_a_cache_beyond_two_gibibytes(heads):
    """T26: slot * 656 overflows int32 from slot 3,273,603 on."""
    cache = MlaCache(torch.zeros(3_276_800, 656, dtype=torch.uint8, device="cuda"), MlaLayout())
    small = random_mla_cache(torch.Generator().manual_seed(0), MlaLayout(), 1, torch.device("cuda"))
    cache.data[-64:] = small.data
    q = torch.randn(2, heads, 576, generator=torch.Generator().manual_seed(0)).bfloat16().cuda()
    far = torch.arange(64, dtype=torch.int32, device="cuda").expand(2, 64).contiguous()
    got = attempt(
        "sparse_mla_decode", "flash_mla", {"q": q, "cache": cache, "slots": far + 3_276_736, "sm_scale": SCALE}
    )
    near = attempt("sparse_mla_decode", "flash_mla", {"q": q, "cache": small, "slots": far, "sm_scale": SCALE})
    assert torch.equal(got["out"], near["out"])
    assert torch.equal(got["lse"], near["lse"])
