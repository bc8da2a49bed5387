"""Asking deep_gemm how many rows of a request it takes natively, and what a GPU must show of its two backends."""

from __future__ import annotations

import pytest
import torch
from fakes.deep_gemm import machine

from dsa_config import settings
from dsa_exec import IndexKCache, PagedKeys, index_select, mqa_logits, paged_mqa_logits
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.deep_gemm_records import ASSUMED_NATIVE_SM90, NATIVE_SM90, refuses_hardware
from dsa_exec.core.hardware import Capabilities, assumed, capabilities
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.vendors import Missing
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.paged_mqa_logits.probe import probe_native_next_n
from dsa_exec.ops.paged_mqa_logits.schedule import paged_schedule

CPU = torch.device("cpu")
PAGES, BATCH = 40, 6
HEADS = (1, 8, 16, 24, 32, 48, 64)


@pytest.mark.parametrize("native", [(1, 2), (1, 2, 4), (1,)])
def test_the_probe_finds_what_the_library_takes(native):
    """A number that it refuses is not native; one that it takes is, if the logits are those of expanded rows."""
    for generation in (1, 2):
        hw, _ = machine("sm90", generation, native=native)
        with assumed(hw):
            assert probe_native_next_n(CPU) == native
    with assumed(machine("sm100")[0]):
        assert probe_native_next_n(CPU) == (1, 2, 3, 4)


def test_the_probe_does_not_believe_wrong_logits(monkeypatch):
    """A build that takes two rows and gets the second wrong does not take two rows."""
    hw, library = machine("sm90")
    right = library._paged

    def wrong(q, *args):
        logits = right(q, *args)
        if q.shape[1] > 1:
            logits[1::2] *= 1.01
        return logits

    monkeypatch.setattr(library, "_paged", wrong)
    with assumed(hw):
        assert probe_native_next_n(CPU) == (1,)


def test_the_probe_tells_other_failures(monkeypatch):
    """What is not a refusal is not taken for one."""
    hw, library = machine("sm90")

    def fails(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(library, "_paged", fails)
    with assumed(hw), pytest.raises(RuntimeError, match="illegal memory access"):
        probe_native_next_n(CPU)
    without = Capabilities("cuda", "sm90", "2.11", "3.6", vendors={"deep_gemm": Missing("deep_gemm", "it is broken")})
    with assumed(without), pytest.raises(ModuleNotFoundError, match="it is broken"):
        probe_native_next_n(CPU)


def refusal() -> str | None:
    """Why the tests below cannot run here."""
    return (
        refuses_hardware(capabilities(torch.device("cuda", 0))) if torch.cuda.is_available() else "needs a CUDA device"
    )


def on_gpu(test):
    """For a GPU with deep_gemm."""
    return pytest.mark.gpu(pytest.mark.skipif(refusal() is not None, reason=str(refusal()))(test))


class Step:
    """Random queries and keys of a decode or verify step on the GPU."""

    def __init__(self, heads: int, n: int, longest: int = 700) -> None:
        generator = torch.Generator().manual_seed(heads * 10 + n)
        device = torch.device("cuda", 0)
        self.n, self.hw = n, capabilities(device)
        self.cache: IndexKCache = random_index_k_cache(generator, IndexKLayout(), PAGES, device)
        columns = -(-longest // 64)
        self.table = torch.randint(0, PAGES, (BATCH, columns), generator=generator).int().to(device)
        self.q = torch.randn(BATCH, n, heads, 128, generator=generator).to(device).to(E4M3)
        self.weights = torch.randn(BATCH * n, heads, generator=generator).to(device)
        self.lens = self.lens_of(torch.tensor([1, n, 64, 257, 600, longest], dtype=torch.int32))

    def lens_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """What the rows of requests of these full lengths see."""
        behind = torch.arange(self.n - 1, -1, -1, dtype=torch.int32)
        return (lengths[:, None] - behind).clamp(min=0).cuda()

    def logits(self, backend: str, schedule=None) -> torch.Tensor:
        """Logits by one backend."""
        with settings.override(paged_mqa_logits_backend=backend):
            width = self.table.shape[1] * 64
            return paged_mqa_logits(
                self.q, self.cache, self.weights, self.lens, self.table, width, schedule=schedule
            ).clone()


def assert_near(got: torch.Tensor, wanted: torch.Tensor, share: float = 1e-3) -> None:
    """The same cells are -inf, and the others are as near as matrix units of e4m3 come."""
    assert torch.equal(got.isneginf(), wanted.isneginf())
    finite = wanted.isfinite()
    assert float((got - wanted)[finite].abs().max()) <= share * float(wanted[finite].abs().max())


@on_gpu
def test_T16_what_this_library_takes_natively_is_what_is_recorded_of_it():
    """T16: the probe finds what is recorded for its version, or assumed of one that is not."""
    hw = capabilities(torch.device("cuda", 0))
    library = hw.library("deep_gemm")
    found = probe_native_next_n(torch.device("cuda", 0))
    recorded = NATIVE_SM90.get((library.distribution or "", library.version or ""), ASSUMED_NATIVE_SM90)
    assert found == (tuple(sorted(recorded)) if hw.arch == "sm90" else (1, 2, 3, 4)), f"record {found} of {library}"


@on_gpu
@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("heads", HEADS)
def test_native_and_expanded_rows_have_the_logits_of_the_specification(heads, n):
    """Every head count with every number of rows, with the step's schedule and without one."""
    step = Step(heads, n)
    wanted = step.logits("torch")
    schedule = paged_schedule("target_verify", step.lens, step.table, hw=step.hw, cache_pages=PAGES)
    assert_near(step.logits("deep_gemm", schedule), wanted)
    assert_near(step.logits("deep_gemm"), wanted)


@on_gpu
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("into", [False, True])
def test_ragged_logits_of_every_head_count(heads, into):
    """New and into a given tensor, cleaned and not: the specification's."""
    generator = torch.Generator().manual_seed(heads)
    rows, keys = 300, 3001
    args = [
        torch.randn(rows, heads, 128, generator=generator).cuda().to(E4M3),
        torch.randn(keys, 128, generator=generator).cuda().to(E4M3),
        (torch.rand(keys, generator=generator) + 0.1).cuda(),
        torch.randn(rows, heads, generator=generator).cuda(),
        torch.randint(0, keys // 2, (rows,), generator=generator).int().cuda(),
        torch.randint(0, keys, (rows,), generator=generator).int().cuda(),
    ]
    out = torch.full((rows, keys + 5), torch.nan, device="cuda")[:, :keys] if into else None
    with settings.override(mqa_logits_backend="torch"):
        wanted = mqa_logits(*args)
    with settings.override(mqa_logits_backend="deep_gemm"):
        assert_near(mqa_logits(*args, out=out), wanted)


@on_gpu
@pytest.mark.parametrize(("mode", "n"), [("decode", 1), ("target_verify", 2), ("draft_extend", 3)])
def test_a_graph_captured_once_follows_a_schedule_refreshed_in_place(mode, n):
    """Over growing lengths, by logits and by selection: what a call without a graph or schedule gives."""
    step = Step(64, n)
    schedule = paged_schedule(mode, step.lens, step.table, hw=step.hw, cache_pages=PAGES)
    keys = PagedKeys(step.cache, step.table, step.lens, schedule)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        with settings.override(paged_mqa_logits_backend="deep_gemm"):
            width = step.table.shape[1] * 64
            logits = paged_mqa_logits(step.q, step.cache, step.weights, step.lens, step.table, width, schedule=schedule)
            return logits, index_select(step.q, step.weights, keys, 64).indices

    run()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits, indices = run()
    for grown in range(0, 100, 33):
        lengths = torch.tensor([n, 63, 65, 257, 500, 600], dtype=torch.int32) + grown
        step.lens.copy_(step.lens_of(lengths))
        step.table.copy_(step.table.roll(1, 0))
        assert paged_schedule(mode, step.lens, step.table, hw=step.hw, out=schedule, cache_pages=PAGES) is schedule
        graph.replay()
        assert_near(logits, step.logits("torch"))
        with settings.override(paged_mqa_logits_backend="deep_gemm"):
            alone = index_select(step.q, step.weights, PagedKeys(step.cache, step.table, step.lens), 64).indices
        assert torch.equal(indices, alone)
