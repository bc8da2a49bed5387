"""The loop over chunks: each row once and in order, and what happens when memory runs out in one."""

from __future__ import annotations

import logging
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsa_config import settings
from dsa_exec import record_calls
from dsa_exec.core import head_padding, logits_workspace
from dsa_exec.core.errors import DsaError, OutOfMemory
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.core.head_padding import pad_heads
from dsa_exec.core.logits_workspace import kept_bytes, kept_workspace
from dsa_exec.core.out_of_memory import is_out_of_memory, mib, release_memory
from dsa_exec.dispatch import chunked
from dsa_exec.dispatch.chunked import run_in_chunks

CPU = torch.device("cpu")
READING = MemoryReading(10**9, 12 * 2**20, 3 * 2**20)


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch):
    monkeypatch.setattr(chunked, "_said", set())
    monkeypatch.setattr(chunked, "memory_reading", lambda _: READING)


class Worker:
    """Does rows, and has memory for so many at a time; or fails at given attempts."""

    def __init__(self, most: int = 10**9, failing: frozenset[int] = frozenset(), error: type = torch.OutOfMemoryError):
        self.most, self.failing, self.error = most, failing, error
        self.attempts: list[int] = []
        self.done: list[int] = []

    def __call__(self, part: slice) -> None:
        count = part.stop - part.start
        self.attempts.append(count)
        if count > self.most or len(self.attempts) in self.failing:
            raise self.error("CUDA out of memory. Tried to allocate 5.00 GiB.")
        self.done += range(part.start, part.stop)


def run(worker: Worker, units: int, at_once: int, **options):
    return run_in_chunks("an_op", units, at_once, worker, lambda count: count * 1000, device=CPU, **options)


@given(units=st.integers(0, 300), at_once=st.integers(1, 300), most=st.integers(1, 300))
def test_every_row_is_done_once_and_in_order_with_any_memory(units, at_once, most):
    """Nothing that was done is lost or done again, however often memory runs out, down to a row at a time."""
    worker = Worker(most)
    chunks, retries = run(worker, units, at_once)
    assert worker.done == list(range(units))
    assert len(worker.attempts) == chunks + retries
    assert max((count for count in worker.attempts if count <= most), default=0) <= most


@given(units=st.integers(1, 60), at_once=st.integers(1, 60), failing=st.frozensets(st.integers(1, 40), max_size=12))
def test_memory_that_comes_and_goes(units, at_once, failing):
    """Failures at any attempts, also in the middle: all is done, unless one row fails twice in a row."""
    worker = Worker(failing=failing)
    try:
        run(worker, units, at_once)
    except OutOfMemory:
        last = len(worker.attempts)
        assert {last - 1, last} <= failing
        assert worker.attempts[-2:] == [1, 1]
    assert worker.done == list(range(len(worker.done)))
    assert len(worker.done) == units or worker.attempts[-1] == 1


def test_a_chunk_that_fails_is_halved_and_so_are_those_after_it():
    """8 rows at a time of 20, memory for 3: 8 and 4 fail, then 2 at a time."""
    worker = Worker(most=3)
    assert run(worker, 20, 8) == (10, 2)
    assert worker.attempts == [8, 4] + [2] * 10
    in_the_middle = Worker(failing=frozenset({2}))
    assert run(in_the_middle, 20, 8) == (4, 1)
    assert in_the_middle.attempts == [8, 8, 4, 4, 4]


def test_it_is_reported_once_with_numbers(caplog):
    """One warning a process and device, then information; the trace has every event."""
    with caplog.at_level(logging.INFO, "dsa_exec.memory"), record_calls() as trace:
        run(Worker(most=2), 8, 8, unit_rows=3)
        run(Worker(most=4), 8, 8)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    said = caplog.records[0].getMessage()
    assert "an_op: memory ran out on cpu with 24 rows at a time, which take up to 24000 bytes; " in said
    assert "12.0 MiB were free and 3.0 MiB unused in torch's allocator" in said
    assert "done with 6 rows at a time after 2 retries" in said
    assert "mqa_logits_free_mem_fraction" in said
    assert [(it.rows, it.next_rows, it.needed_bytes) for it in trace.out_of_memory] == [
        (24, 12, 24000),
        (12, 6, 12000),
        (8, 4, 8000),
    ]
    assert {(it.op, it.device, it.memory) for it in trace.out_of_memory} == {("an_op", "cpu", READING)}


def test_it_gives_up_with_what_was_needed_what_there_was_and_what_to_change():
    """A row that fails twice, the second time with all released, is an error with numbers; its cause goes with it."""
    worker = Worker(most=0)
    with record_calls() as trace, pytest.raises(OutOfMemory) as caught:
        run(worker, 5, 4)
    assert worker.attempts == [4, 2, 1, 1]
    error = caught.value
    assert (error.op, error.device, error.rows, error.needed_bytes) == ("an_op", "cpu", 1, 1000)
    assert (error.free_bytes, error.reusable_bytes, error.retries) == (12 * 2**20, 3 * 2**20, 3)
    assert isinstance(error, DsaError)
    assert isinstance(error, RuntimeError)
    words = (
        "an_op: out of memory on cpu with 1 row at a time after 3 retries with fewer: up to 1000 bytes were needed, "
        "12582912 are free and 3145728 more are unused in torch's allocator; "
    )
    assert str(error).startswith(words)
    for name in ("mem_fraction_static", "mqa_logits_backend", "topk_backend"):
        assert name in error.change
        assert hasattr(settings, name)
    assert isinstance(error.__cause__, torch.OutOfMemoryError)
    assert [it.next_rows for it in trace.out_of_memory] == [2, 1, 1, 0]


def test_a_row_alone_has_another_try_once_all_is_released():
    """What is kept may be what it lacks. Another row that fails has its own second try."""
    worker = Worker(failing=frozenset({1, 3}))
    assert run(worker, 3, 1) == (3, 2)
    assert worker.attempts == [1] * 5


def test_what_failed_is_let_go_of_before_the_next_try():
    """The tensors of the failed chunk, which its traceback holds, are gone when memory is released."""
    alive = []

    def work(part: slice) -> None:
        logits = torch.empty(4)
        alive.append(weakref.ref(logits))
        if part.stop - part.start > 1:
            try:
                raise ValueError("first")
            except ValueError as error:
                raise torch.OutOfMemoryError("then") from error

    released = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "release_memory", lambda _: released.append([it() for it in alive]))
        run(work, 2, 2)
    assert released == [[None]]


def test_what_is_kept_is_released(monkeypatch):
    """This thread's workspaces and padded queries on the device."""
    monkeypatch.setattr(logits_workspace, "_kept", logits_workspace._Kept())
    monkeypatch.setattr(head_padding, "_buffers", head_padding._Buffers())
    kept_workspace(CPU, on_cuda=False).bound(10**6)
    kept_workspace(CPU, on_cuda=False).logits(10, 10)
    pad_heads(torch.ones(2, 3, 4), 8)
    release_memory(torch.device("meta"))
    assert kept_bytes() > 0
    assert len(head_padding._buffers.kept) == 1
    release_memory(CPU)
    assert kept_bytes() == 0
    assert len(head_padding._buffers.kept) == 0


@pytest.mark.parametrize("why", ["retry_out_of_memory is off", "a graph is being captured"])
def test_where_nothing_is_tried_again_the_error_comes_as_it_is(why):
    """With the setting off, and while a graph is captured, which must not depend on what is free: with a note."""
    worker = Worker(most=2)
    capturing = "captured" in why
    with settings.override(retry_out_of_memory=capturing), pytest.raises(torch.OutOfMemoryError) as caught:
        run(worker, 8, 4, capturing=capturing)
    assert worker.attempts == [4]
    (note,) = caught.value.__notes__
    assert note.startswith(f"nothing is tried with fewer rows, since {why}; ")


def test_other_errors_are_not_touched():
    """Whatever is not about memory comes as it is, at once."""
    worker = Worker(most=2, error=ValueError)
    with pytest.raises(ValueError, match="CUDA out of memory") as caught:
        run(worker, 8, 4)
    assert worker.attempts == [4]
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("anything"), True),
        (MemoryError(), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: ..."), True),
        (RuntimeError("out of resource: shared memory, Required: 300000"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_an_error_says(error, is_one):
    """Torch's own type, and the words of those who have none; resources of a multiprocessor are no memory."""
    assert is_out_of_memory(error) == is_one


def test_sizes_for_people():
    """Small ones in bytes."""
    assert [mib(it) for it in (1000, 2**17, 3 * 2**20)] == ["1000 bytes", "0.1 MiB", "3.0 MiB"]
