"""Where logits have no room, `auto` may take a backend of `index_select` that has none."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dsa_config import settings
from dsa_exec import GatheredKeys, MemoryReading, PagedKeys, index_select, record_calls
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.logits_workspace import LogitsWorkspace
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch import registry
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.registry import backend as backend_named
from dsa_exec.dispatch.select import forget_decisions
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.index_select import Call
from dsa_exec.ops.index_select.hopper_launch import hopper_launch

ROWS, KEYS, K = 64, 100, 16
PLENTY = MemoryReading(2**40, 2**40)
HOPPER = Capabilities("cuda", "sm90", "2.11", "3.6.0")
ROOM = "slower than logits and topk apart where there is room for the logits"


def arguments(rows=ROWS, heads=32):
    generator = torch.Generator().manual_seed(0)
    keys = GatheredKeys(
        torch.randn(KEYS, 128, generator=generator).to(E4M3),
        torch.rand(KEYS, generator=generator) + 0.1,
        torch.zeros(rows, dtype=torch.int32),
        torch.arange(37, 37 + rows, dtype=torch.int32).clamp(max=KEYS),
    )
    q = torch.randn(rows, heads, 128, generator=generator).to(E4M3)
    return q, torch.randn(rows, heads, generator=generator), keys, K


@pytest.fixture
def bounded(monkeypatch):
    """A backend that has no logits and takes `bytes` whatever the rows, and the calls that it ran."""
    calls, taken = [], {"bytes": 1000}
    torch_backend = backend_named("index_select", "torch")

    def run(call):
        calls.append(call)
        return torch_backend.run(call)

    fused = Backend(
        "gluon",
        run,
        declines=lambda call, _: None if call.scarce else ROOM,
        rank=10,
        footprint=lambda call, _: Footprint(fixed_bytes=taken["bytes"], row_bytes=call.k * 4),
    )
    found = {**registry.backends("index_select"), "gluon": fused}
    real = registry.backends
    monkeypatch.setattr("dsa_exec.dispatch.select.backends", lambda op: found if op == "index_select" else real(op))
    forget_decisions()
    yield calls, taken
    forget_decisions()


def chosen(memory):
    """The backends that one call ran on, its chunks, and what it selected."""
    with record_calls() as trace:
        selection = index_select(*arguments(), memory=memory)
    names = [decision.backend.name for (op, _), (decision, _) in trace.decisions.items() if op == "index_select"]
    return names, selection.chunks, selection.indices


def test_with_room_for_the_logits_it_is_passed_over(bounded):
    """One chunk, and the decision says why."""
    calls, _ = bounded
    names, chunks, _ = chosen(PLENTY)
    assert (names, chunks, calls) == (["torch"], 1, [])


def test_without_room_it_is_taken_whole(bounded):
    """The same selection, in one chunk in place of many, and one decision is told."""
    calls, _ = bounded
    _, _, wanted = chosen(PLENTY)
    tight = MemoryReading(10**6, 40000)
    names, chunks, indices = chosen(tight)
    assert (names, chunks) == (["gluon"], 1)
    assert [call.q.shape[0] for call in calls] == [ROWS]
    assert torch.equal(indices, wanted)


def test_if_it_has_no_more_room_itself_rows_go_in_chunks_as_before(bounded):
    """Its own memory is beyond the budget: nothing would be gained."""
    calls, taken = bounded
    taken["bytes"] = 2**30
    names, chunks, _ = chosen(MemoryReading(10**6, 40000))
    assert names == ["torch"]
    assert chunks > 1
    assert calls == []


def test_large_chunks_stay_what_they_are(bounded, monkeypatch):
    """Chunks that keep a device busy are no reason."""
    calls, _ = bounded
    monkeypatch.setattr("dsa_exec.ops.index_select.chunks.SMALL_CHUNK_LOGITS", 1)
    names, chunks, _ = chosen(MemoryReading(10**6, 40000))
    assert names == ["torch"]
    assert chunks > 1
    assert calls == []


@pytest.fixture
def on_hopper(monkeypatch):
    """Kernels are compiled, as on a GPU."""
    monkeypatch.setattr("dsa_exec.core.triton_support.is_interpreted", lambda: False)


def hopper_call(rows=ROWS, heads=64, k=K, **more):
    return Call(*arguments(rows, heads)[:3], k, True, "auto", LogitsWorkspace(torch.device("cpu")), **more)


@pytest.mark.usefixtures("on_hopper")
def test_the_kernel_for_hopper_declines_until_logits_are_scarce():
    """As measured; elsewhere it is not missed."""
    fused = backend_named("index_select", "gluon")
    assert fused.refuses(hopper_call(), HOPPER) is None
    assert fused.declines(hopper_call(), HOPPER) == ROOM
    assert fused.declines(hopper_call(scarce=True), HOPPER) is None
    for name in ("deep_gemm", "gluon"):
        named = fused.declines(dataclasses.replace(hopper_call(scarce=True), logits_backend=name), HOPPER)
        assert named == f"mqa_logits_backend names {name}, which this kernel would take the place of"
    with settings.override(topk_backend="triton"):
        assert "topk_backend names triton" in fused.declines(hopper_call(scarce=True), HOPPER)
    assert "for sm90" in fused.declines(hopper_call(scarce=True), dataclasses.replace(HOPPER, arch="sm100"))
    cache = IndexKCache.allocate(64, device="cpu", model_dtype=torch.bfloat16)
    table, lens = torch.zeros(2, 1, dtype=torch.int32), torch.ones(2, 1, dtype=torch.int32)
    cached = dataclasses.replace(hopper_call(scarce=True), keys=PagedKeys(cache, table, lens))
    assert "these are in the cache" in fused.declines(cached, HOPPER)


@pytest.mark.usefixtures("on_hopper")
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"heads": 16}, "16 heads of 128 channels"),
        ({"k": 3600}, "k=3600, with room for 4064 candidates this kernel selects up to 3552"),
    ],
)
def test_what_the_kernel_for_hopper_does_not_take(changed, sentence):
    """Told with the value."""
    assert sentence in backend_named("index_select", "gluon").refuses(hopper_call(**changed), HOPPER)


@pytest.mark.usefixtures("on_hopper")
@pytest.mark.parametrize(
    ("launch", "sentence"),
    [
        ("capacity=4100", "capacity=4100, it is a multiple of 4 up to 4096"),
        ("capacity=514", "capacity=514, it is a multiple of 4"),
        ("stages=3", "stages is an even number"),
        ("programs=0", "one of the programs at least"),
        ("capacity=512", "with room for 512 candidates this kernel selects up to 0"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(launch, sentence):
    """Before anything is written where there is no room."""
    with settings.override(kernel_launch=f"index_select.gluon.{launch}"):
        assert sentence in backend_named("index_select", "gluon").refuses(hopper_call(), HOPPER)


def test_its_memory_is_bounded():
    """For 64 heads less than 32 MiB whatever rows and context, so that 4096 rows take 64 MiB with what they select."""
    launch = hopper_launch()
    taken = [launch.candidate_bytes(launch.programs_for(launch.groups(rows, 64)), 64) for rows in (1, 4096, 2**15)]
    assert taken == sorted(taken)
    assert taken[1] + 4 <= 2**25
    assert taken[2] <= 33 * 2**20
    for rows in (1, 7, 4096, 5000):
        groups = launch.groups(rows, 64)
        programs = launch.programs_for(groups)
        assert 1 <= programs <= launch.programs
        assert -(-groups // programs) == -(-groups // launch.programs)
