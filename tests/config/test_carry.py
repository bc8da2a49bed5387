"""Values of a scope in threads, tasks and other processes: what gets there by itself, and what has to be carried."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Annotated

import pytest
from pydantic import AfterValidator, SecretStr
from pydantic_settings import SettingsConfigDict

from dsa_config import LiveSettings, Renamed, SettingError, live, setting, settings
from dsa_config.overrides import entered

SPAWN = multiprocessing.get_context("spawn")
PROGRAM = "from dsa_config import settings as s; print(s.fuse_topk, s.mqa_logits_max_chunk_bytes)"


def double(number: int) -> int:
    return number * 2


class Carried(LiveSettings):
    """Of a class of its own, at a place where another process finds it."""

    model_config = SettingsConfigDict(env_prefix="CARRIED_")

    depth: int = setting(1, deprecated_names=[Renamed("CARRIED_OLD", since="1", remove_in="2", split=True)])
    width: int = setting(1, deprecated_names=[Renamed("CARRIED_OLD", since="1", remove_in="2", split=True)])
    doubled: Annotated[int, AfterValidator(double)] = setting(1)
    token: SecretStr = setting(SecretStr(""))
    anything: object = setting(None)


def read(_: object = None) -> tuple[bool, int]:
    return settings.fuse_topk, settings.mqa_logits_max_chunk_bytes


def read_other(_: object = None) -> tuple[int, int]:
    return live(Carried).depth, live(Carried).doubled


def read_into(pipe) -> None:
    pipe.send((settings.fuse_topk, settings.mqa_logits_max_chunk_bytes))


def explain_other(_: object = None) -> str:
    return str(settings.explain("fuse_topk"))


class Reading:
    """A class is a callable too."""

    def __init__(self) -> None:
        self.seen = read()


OVERRIDDEN = (False, 5)


@pytest.fixture
def overridden():
    """One value for the process, one for the context."""
    settings.set(mqa_logits_max_chunk_bytes=5)
    with settings.override(fuse_topk=False):
        yield


def test_a_carried_function_has_the_scopes_in_any_thread(overridden):
    """A bare thread does not; the wrapper has the function's name."""
    seen = []
    carried = settings.carry(lambda: seen.append(read()))
    for target in (lambda: seen.append(read()), carried):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert seen == [(True, 5), OVERRIDDEN]
    assert settings.carry(read).__name__ == "read"


def test_carried_scopes_are_inside_those_of_the_caller():
    """What the maker's context overrides wins over the caller's, whose other scopes stay."""
    with settings.override(mqa_logits_max_chunk_bytes=1):
        carried = settings.carry(read)
    with settings.override(mqa_logits_max_chunk_bytes=2, fuse_topk=False):
        assert carried() == (False, 1)
        assert read() == (False, 2)
    assert carried() == (True, 1)


def test_a_carried_function_may_raise():
    """The caller's scopes are as before, and a scope that the function leaves open ends with it."""

    def leave_open():
        settings.override(fuse_topk=False).__enter__()
        raise RuntimeError("body")

    with pytest.raises(RuntimeError, match="body"):
        settings.carry(leave_open)()
    assert entered.get() == ()


def test_a_carried_coroutine_function_has_the_scopes_in_its_body(overridden):
    """Whoever awaits it, in whichever loop; and it alone."""

    async def body():
        await asyncio.sleep(0)
        return read()

    async def beside():
        return read()

    carried = settings.carry(body)
    with ThreadPoolExecutor(1) as pool:

        async def main():
            return [*await asyncio.gather(carried(), beside()), await carried(), read()]

        assert pool.submit(asyncio.run, main()).result() == [OVERRIDDEN, (True, 5), OVERRIDDEN, (True, 5)]


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_generator_functions_are_not_carried(kind):
    """Their body would run where nobody has thought of."""

    def generator():
        yield

    async def async_generator():
        yield

    with pytest.raises(TypeError, match="carry the function that consumes it"):
        settings.carry(generator if kind == "generator" else async_generator)


def test_an_executor_of_threads_carries(overridden):
    """submit and map take the scopes of the context that calls them; the pool itself stays without."""
    with settings.carrying(ThreadPoolExecutor(2)) as pool:
        assert pool.submit(read).result() == OVERRIDDEN
        assert list(pool.map(read, range(3), timeout=60)) == [OVERRIDDEN] * 3
        with settings.override(mqa_logits_max_chunk_bytes=9):
            later = pool.submit(read)
        assert later.result() == (False, 9)
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(read)
    with ThreadPoolExecutor(1) as bare:
        assert bare.submit(read).result() == (True, 5)


def test_a_recording_follows_into_carried_threads():
    """What carried work reads is noted as if it had been read here."""
    with settings.record_reads() as reads, settings.carrying(ThreadPoolExecutor(1)) as pool:
        pool.submit(read).result()
    assert set(reads.reads) == {"fuse_topk", "mqa_logits_max_chunk_bytes"}


def test_an_executor_of_processes_carries(overridden):
    """Spawned workers start with nothing; values of the process and of the context come with the work."""
    with live(Carried).override(depth=7, doubled=4), ProcessPoolExecutor(1, SPAWN) as bare:
        assert read_other() == (7, 8)
        assert bare.submit(read).result() == (True, 0)
        pool = settings.carrying(bare)
        assert pool.submit(read).result() == OVERRIDDEN
        assert list(pool.map(read, range(4), chunksize=2)) == [OVERRIDDEN] * 4
        assert pool.submit(read_other).result() == (7, 8), "scopes of other classes, and nothing is validated twice"
        assert f"settings carried from process {os.getpid()}" in pool.submit(explain_other).result()
        assert pool.submit(Reading).result().seen == OVERRIDDEN
        assert bare.submit(read).result() == (True, 0), "nothing is left in the worker"


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_of_its_own_gets_what_is_carried(overridden, method):
    """`Process(target=settings.carry(f))`; a forked one has inherited it anyway."""
    context = multiprocessing.get_context(method)
    for target, seen in ((settings.carry(read_into), OVERRIDDEN), (read_into, (True, 0))):
        if method == "fork":
            seen = OVERRIDDEN
        here, there = context.Pipe()
        process = context.Process(target=target, args=(there,))
        process.start()
        process.join(60)
        assert here.poll(1)
        assert here.recv() == seen


def test_a_carried_function_can_be_sent_on(overridden):
    """What has arrived can be pickled again; with no values it is just the function's."""
    sent = pickle.loads(pickle.dumps(settings.carry(read)))
    again = pickle.loads(pickle.dumps(sent))
    with settings.override(fuse_topk=True):
        assert again() == OVERRIDDEN
    settings.reset()
    entered.set(())
    assert pickle.loads(pickle.dumps(settings.carry(read)))() == (True, 0)


def test_subprocesses_get_an_environment(overridden, monkeypatch):
    """child_env gives what the program gives, in place of every name of the setting; os.environ is left alone."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "1")
    before = dict(os.environ)

    def child(env=None):
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert child(settings.child_env()) == ["False", "5"]
    assert child() == ["True", "0"]
    assert dict(os.environ) == before
    assert settings.child_env({"OTHER": "1"}) == {
        "OTHER": "1",
        "SGLANG_DSA_FUSE_TOPK": "0",
        "SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES": "5",
    }


def test_a_name_that_was_split_stays_for_those_who_need_it():
    """It is taken away only when every setting that has it is given anew."""
    base = {"CARRIED_OLD": "3"}
    with live(Carried).override(depth=7):
        assert live(Carried).child_env(base) == {"CARRIED_OLD": "3", "CARRIED_DEPTH": "7"}
        with live(Carried).override(width=8):
            assert live(Carried).child_env(base) == {"CARRIED_DEPTH": "7", "CARRIED_WIDTH": "8"}


def test_child_env_gives_the_very_value_or_refuses():
    """A validator does not run twice over; what no text can say is an error that keeps secrets."""
    with live(Carried).override(doubled=4, token="plain"):
        assert live(Carried).child_env({}) == {"CARRIED_DOUBLED": "4", "CARRIED_TOKEN": "plain"}
    with live(Carried).override(anything=object()), pytest.raises(SettingError, match="anything=<object.*has no text"):
        live(Carried).child_env({})
    with live(Carried).override(token="hunter\0two"), pytest.raises(SettingError) as caught:
        live(Carried).child_env({})
    assert "token='**********' cannot be given" in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_threads_of_asyncio(overridden):
    """to_thread takes the context along, run_in_executor does not; a carrying executor does."""

    async def main():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            return [
                await asyncio.to_thread(read),
                await loop.run_in_executor(pool, read),
                await loop.run_in_executor(settings.carrying(pool), read),
                await loop.run_in_executor(pool, settings.carry(read)),
            ]

    assert asyncio.run(main()) == [OVERRIDDEN, (True, 5), OVERRIDDEN, OVERRIDDEN]


def test_a_suspended_generator_leaks_to_its_consumer_until_it_is_closed():
    """A generator has no context of its own: the scope is the consumer's too, and ends with the generator's `with`."""

    def generator():
        with settings.override(fuse_topk=False):
            yield settings.fuse_topk

    body = generator()
    assert (next(body), settings.fuse_topk) == (False, False)
    with settings.override(mqa_logits_max_chunk_bytes=3):
        body.close()
        assert read() == (True, 3)
    assert read() == (True, 0)


def test_a_decorated_generator_does_not_leak():
    """The decorator holds while the body runs, and never while it is suspended."""

    @settings.override(fuse_topk=False)
    def generator():
        yield settings.fuse_topk

    body = generator()
    assert (next(body), settings.fuse_topk) == (False, True)


def test_an_async_generator_of_another_task_shows_its_scope_there_alone():
    """As with async fixtures whose steps are tasks of their own: the test does not see it, and closing does no harm."""

    @contextlib.asynccontextmanager
    async def fixture():
        with settings.override(fuse_topk=False):
            yield settings.fuse_topk

    async def same_task():
        async with fixture() as inside:
            return inside, settings.fuse_topk

    async def steps_in_tasks():
        manager = fixture()
        inside = await asyncio.create_task(manager.__aenter__())
        seen = settings.fuse_topk
        await asyncio.create_task(manager.__aexit__(None, None, None))
        return inside, seen, entered.get()

    assert asyncio.run(same_task()) == (False, False)
    assert asyncio.run(steps_in_tasks()) == (False, True, ())
    assert settings.fuse_topk is True


def test_an_async_fixture_reaches_the_test_by_set():
    """For steps in different tasks a value of the process is the one that all of them see."""

    @contextlib.asynccontextmanager
    async def fixture():
        settings.set(fuse_topk=False)
        yield
        settings.reset("fuse_topk")

    async def steps_in_tasks():
        manager = fixture()
        await asyncio.create_task(manager.__aenter__())
        seen = settings.fuse_topk
        await asyncio.create_task(manager.__aexit__(None, None, None))
        return seen, settings.fuse_topk

    assert asyncio.run(steps_in_tasks()) == (False, True)
