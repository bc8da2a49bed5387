"""Scoped values: seen here and in what starts here, gone on every path, never in the environment."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dsa_config import BadValue, BadValues, UnknownSetting, settings
from dsa_config.overrides import entered


def test_nests_and_restores():
    """The innermost scope wins, and each exit brings back what was there before."""
    with settings.override(fuse_topk=False, mqa_logits_free_mem_fraction=0.1):
        with settings.override(fuse_topk=True):
            assert (settings.fuse_topk, settings.mqa_logits_free_mem_fraction) == (True, 0.1)
        assert (settings.fuse_topk, settings.mqa_logits_free_mem_fraction) == (False, 0.1)
    assert (settings.fuse_topk, settings.mqa_logits_free_mem_fraction) == (True, 0.2)


def test_restores_when_the_body_raises():
    """An exception in the body leaks nothing."""
    with pytest.raises(RuntimeError, match="body"), settings.override(fuse_topk=False):
        raise RuntimeError("body")
    assert settings.fuse_topk is True


def test_what_was_unset_stays_unset(monkeypatch):
    """After the scope the environment and other layers decide again, as if it had never been."""
    with settings.override(fuse_topk=False):
        assert "SGLANG_DSA_FUSE_TOPK" not in os.environ
    assert settings.explain("fuse_topk").source == "default"
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    assert settings.fuse_topk is False


def test_stronger_than_set_and_environment(monkeypatch):
    """override > set > environment > default, whatever the order in which they come."""
    with settings.override(mqa_logits_max_chunk_bytes=4):
        monkeypatch.setenv("SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES", "2")
        settings.set(mqa_logits_max_chunk_bytes=3)
        assert settings.mqa_logits_max_chunk_bytes == 4
    assert settings.mqa_logits_max_chunk_bytes == 3
    settings.reset("mqa_logits_max_chunk_bytes")
    assert settings.mqa_logits_max_chunk_bytes == 2


def test_a_bad_environment_value_underneath_does_no_harm(monkeypatch):
    """Inside the scope the override is the value; outside, the bad text is an error again."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    with settings.override(fuse_topk=False):
        assert settings.fuse_topk is False
    with pytest.raises(BadValue):
        settings.fuse_topk  # noqa: B018


def test_one_scope_object_can_be_entered_again_while_entered():
    """Re-entrant: two entries need two exits."""
    scope = settings.override(fuse_topk=False)
    with scope:
        with scope:
            assert settings.fuse_topk is False
        assert settings.fuse_topk is False
    assert settings.fuse_topk is True


def test_one_scope_object_can_be_entered_in_two_contexts_at_once():
    """Each context leaves its own: what one remembers of its entry is no use to the other."""
    scope = settings.override(fuse_topk=False)
    contexts = contextvars.Context(), contextvars.Context()
    for context in contexts:
        context.run(scope.__enter__)
    seen = []
    for context in contexts:
        seen.append(context.run(lambda: settings.fuse_topk))
        context.run(scope.__exit__, None, None, None)
        seen.append(context.run(lambda: settings.fuse_topk))
    assert seen == [False, True, False, True]


def test_a_scope_can_be_left_in_a_copy_of_its_context():
    """The copy is rid of it, and the original still has it."""
    with settings.override(fuse_topk=False), settings.override(mqa_logits_free_mem_fraction=0.1):
        innermost = entered.get()[-1]
        copy = contextvars.copy_context()
        copy.run(innermost.__exit__, None, None, None)
        assert copy.run(lambda: (settings.fuse_topk, settings.mqa_logits_free_mem_fraction)) == (False, 0.2)
        assert settings.mqa_logits_free_mem_fraction == 0.1
    assert settings.mqa_logits_free_mem_fraction == 0.2


def test_scopes_may_close_out_of_order():
    """The scope that is still open keeps its value, and nothing is left when both are closed."""
    first, second, third = (settings.override(mqa_logits_max_chunk_bytes=n) for n in (1, 2, 3))
    first.__enter__()
    second.__enter__()
    third.__enter__()
    first.__exit__(None, None, None)
    assert settings.mqa_logits_max_chunk_bytes == 3
    third.__exit__(None, None, None)
    assert settings.mqa_logits_max_chunk_bytes == 2
    second.__exit__(None, None, None)
    assert settings.mqa_logits_max_chunk_bytes == 0
    second.__exit__(None, None, None)  # once too often does no harm
    assert settings.mqa_logits_max_chunk_bytes == 0


def test_mistakes_are_found_before_anything_changes():
    """An unknown name or a bad value raises at the call, with the place of the call, and changes nothing."""
    with pytest.raises(UnknownSetting, match="did you mean fuse_topk"):
        settings.override(fuse_tpok=False)
    with pytest.raises(BadValue, match=r"test_override.py:\d+\): is not a boolean"):
        settings.override(fuse_topk="maybe")
    with pytest.raises(BadValues) as caught:
        settings.override(fuse_topk="maybe", use_aiter=2, kv_format="fp8")
    assert [error.name for error in caught.value.errors] == ["fuse_topk", "use_aiter"]
    assert settings.fuse_topk is True


def test_other_threads_do_not_see_it():
    """A thread that runs beside the scope reads its own values, until it is given the context."""
    with settings.override(fuse_topk=False), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: settings.fuse_topk).result() is True
        context = contextvars.copy_context()
        assert pool.submit(context.run, lambda: settings.fuse_topk).result() is False
    assert settings.fuse_topk is True


def test_tasks_see_what_was_there_when_they_started():
    """A task keeps its parent's values, even after the parent's scope has closed; siblings do not mix."""

    async def child(release: asyncio.Event) -> bool:
        await release.wait()
        return settings.fuse_topk

    async def worker(limit: int) -> bool:
        with settings.override(mqa_logits_max_chunk_bytes=limit):
            await asyncio.sleep(0)
            return settings.mqa_logits_max_chunk_bytes == limit

    async def main() -> None:
        release = asyncio.Event()
        with settings.override(fuse_topk=False):
            inside = asyncio.create_task(child(release))
            await asyncio.sleep(0)
        outside = asyncio.create_task(child(release))
        release.set()
        assert (await inside, await outside) == (False, True)
        assert all(await asyncio.gather(*(worker(limit) for limit in range(1, 50))))

    asyncio.run(main())
    assert settings.fuse_topk is True


def test_nothing_is_left_of_a_closed_scope():
    """After the scopes have closed, in whatever order and number, the context holds nothing of them."""
    scopes = [settings.override(mqa_logits_max_chunk_bytes=n) for n in range(3000)]
    for scope in scopes:
        scope.__enter__()
    assert settings.mqa_logits_max_chunk_bytes == 2999
    for scope in scopes:
        scope.__exit__(None, None, None)
    assert settings.mqa_logits_max_chunk_bytes == 0
    assert entered.get() == ()


def test_decorates_a_function():
    """The values hold in the body, on every call, whether it returns or raises."""

    @settings.override(fuse_topk=False)
    def body(fail: bool) -> bool:
        """Kept."""
        if fail:
            raise RuntimeError
        return settings.fuse_topk

    for _ in range(2):
        assert body(False) is False
        with pytest.raises(RuntimeError):
            body(True)
        assert settings.fuse_topk is True
    assert (body.__name__, body.__doc__) == ("body", "Kept.")


def test_decorates_a_coroutine_function():
    """The values hold across awaits in the body, and not in tasks that run meanwhile."""
    seen = []

    @settings.override(fuse_topk=False)
    async def body() -> bool:
        await asyncio.sleep(0)
        return settings.fuse_topk

    async def beside() -> None:
        seen.append(settings.fuse_topk)

    async def main() -> None:
        assert await asyncio.gather(body(), beside(), body()) == [False, None, False]
        assert await body() is False
        assert settings.fuse_topk is True

    asyncio.run(main())
    assert seen == [True]


@settings.override(fuse_topk=False)
def generator(log: list[object]):
    """Yields what it reads; opens a scope of its own across a yield; logs what is sent, thrown and returned."""
    try:
        log.append((yield settings.fuse_topk))
        with settings.override(mqa_logits_max_chunk_bytes=7):
            yield (settings.fuse_topk, settings.mqa_logits_max_chunk_bytes)
            yield (settings.fuse_topk, settings.mqa_logits_max_chunk_bytes)
        yield (settings.fuse_topk, settings.mqa_logits_max_chunk_bytes, settings.use_aiter)
    except ValueError as error:
        yield (settings.fuse_topk, str(error))
    finally:
        log.append(settings.fuse_topk)
    return "returned"


def read_outside() -> tuple[bool, int]:
    return settings.fuse_topk, settings.mqa_logits_max_chunk_bytes


def test_decorates_a_generator_function():
    """The values hold in the body and never while it is suspended; the body's own scopes live across its yields."""
    log: list[object] = []
    body = generator(log)
    assert read_outside() == (True, 0)
    assert next(body) is False
    assert read_outside() == (True, 0)
    assert body.send("sent") == (False, 7)
    assert read_outside() == (True, 0)
    with settings.override(use_aiter=True):
        assert next(body) == (False, 7)
        assert next(body) == (False, 0, True), "what the consumer overrides is seen while the body runs"
    with pytest.raises(StopIteration, match="returned"):
        next(body)
    assert log == ["sent", False]
    assert read_outside() == (True, 0)


def test_a_decorated_generator_takes_throw_and_close():
    """throw() reaches the body with the values in force, and so does close()."""
    log: list[object] = []
    body = generator(log)
    next(body)
    assert body.throw(ValueError("thrown")) == (False, "thrown")
    body.close()
    assert log == [False]
    unstarted = generator(log)
    unstarted.close()
    assert log == [False]
    assert read_outside() == (True, 0)


def test_a_decorated_generator_works_in_yield_from():
    """A delegating generator gets the items and the return value."""

    def delegate():
        return (yield from generator([]))

    items = []
    body = delegate()
    with pytest.raises(StopIteration, match="returned"):
        while True:
            items.append(next(body))
    assert items == [False, (False, 7), (False, 7), (False, 0, False)]


@settings.override(fuse_topk=False)
async def async_generator(log: list[object]):
    try:
        log.append((yield settings.fuse_topk))
        with settings.override(mqa_logits_max_chunk_bytes=7):
            await asyncio.sleep(0)
            yield (settings.fuse_topk, settings.mqa_logits_max_chunk_bytes)
        yield (settings.fuse_topk, settings.mqa_logits_max_chunk_bytes)
    except ValueError as error:
        yield (settings.fuse_topk, str(error))
    finally:
        log.append(settings.fuse_topk)


def test_decorates_an_async_generator_function():
    """The same for async generators: sent values, thrown errors, early close, and nothing leaks to the consumer."""

    async def main() -> None:
        log: list[object] = []
        body = async_generator(log)
        assert await anext(body) is False
        assert read_outside() == (True, 0)
        assert await body.asend("sent") == (False, 7)
        assert read_outside() == (True, 0)
        assert await anext(body) == (False, 0)
        with pytest.raises(StopAsyncIteration):
            await anext(body)
        thrown = async_generator(log)
        await anext(thrown)
        assert await thrown.athrow(ValueError("thrown")) == (False, "thrown")
        await thrown.aclose()
        assert log == ["sent", False, False]
        assert [item async for item in async_generator([])] == [False, (False, 7), (False, 0)]
        assert read_outside() == (True, 0)

    asyncio.run(main())


def test_a_consumers_scope_does_not_live_on_in_the_body():
    """What the consumer overrides is seen while the body runs, and gone from it when the consumer's scope is."""

    @settings.override(fuse_topk=False)
    def body():
        with settings.override(mqa_logits_max_chunk_bytes=7):
            yield settings.mqa_logits_max_chunk_bytes
        while True:
            yield settings.mqa_logits_max_chunk_bytes

    steps = body()
    with settings.override(mqa_logits_max_chunk_bytes=99):
        assert next(steps) == 7
    assert [next(steps), settings.mqa_logits_max_chunk_bytes, next(steps)] == [0, 0, 0]


def test_a_decorated_async_generator_survives_the_end_of_its_loop(caplog):
    """A loop that ends closes the generator once, with the values in force in its last steps."""
    seen = []

    @settings.override(fuse_topk=False)
    async def body():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            seen.append(settings.fuse_topk)

    async def main():
        steps = body()
        await anext(steps)
        return steps

    for _ in range(5):
        kept = asyncio.run(main())
        del kept
    assert seen == [False] * 5
    assert not caplog.records


def through(function):
    """A decorator that hides what kind of function it wraps."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    del wrapper.__wrapped__
    return wrapper


def test_wrappers_that_hide_a_body_are_seen_through():
    """Around a plain function that gives a coroutine or a generator, the values hold in that body all the same."""

    @settings.override(fuse_topk=False)
    @through
    async def coroutine():
        return settings.fuse_topk

    @settings.override(fuse_topk=False)
    @through
    def steps():
        yield settings.fuse_topk

    @settings.override(fuse_topk=False)
    @through
    async def async_steps():
        yield settings.fuse_topk

    async def main():
        return [await coroutine(), [item async for item in async_steps()]]

    assert asyncio.run(main()) == [False, [False]]
    assert list(steps()) == [False]
    assert settings.fuse_topk is True


@pytest.mark.parametrize("make", [contextlib.contextmanager, contextlib.asynccontextmanager])
def test_around_a_context_manager_it_says_where_to_put_it(make):
    """Above @contextmanager the values could hold for nothing that the user means; below it they hold in the body."""

    def body():
        yield settings.fuse_topk

    async def async_body():
        yield settings.fuse_topk

    function = body if make is contextlib.contextmanager else async_body
    with pytest.raises(TypeError, match=r"put settings.override\(...\) below"):
        settings.override(fuse_topk=False)(make(function))()
    if make is contextlib.contextmanager:
        with make(settings.override(fuse_topk=False)(body))() as value:
            assert (value, settings.fuse_topk) == (False, True)


def test_decorates_methods_of_every_kind():
    """Methods, class methods and static methods keep their kind, whichever decorator is on top."""
    unfused = settings.override(fuse_topk=False)

    class Case:
        @unfused
        def method(self):
            return type(self), settings.fuse_topk

        @unfused
        @classmethod
        def above_class(cls):
            return cls, settings.fuse_topk

        @staticmethod
        @unfused
        def below_static(value):
            return value, settings.fuse_topk

        @unfused
        @staticmethod
        def above_static(value):
            return value, settings.fuse_topk

    assert Case().method() == Case.above_class() == (Case, False)
    assert Case().below_static(1) == Case().above_static(1) == Case.above_static(1) == (1, False)


def test_decorates_partials_and_refuses_classes():
    """Any callable will do, but a class would be entered once, at its construction, and surprise everyone."""
    read = settings.override(fuse_topk=False)(functools.partial(getattr, settings, "fuse_topk"))
    assert read() is False
    with pytest.raises(TypeError, match="decorates functions"):
        settings.override(fuse_topk=False)(type("Case", (), {}))


def test_many_threads_override_without_mixing():
    """Under rapid switching each thread reads exactly what it has overridden."""
    wrong: list[tuple[int, int]] = []

    def work(limit: int) -> None:
        for _ in range(300):
            with settings.override(mqa_logits_max_chunk_bytes=limit):
                if (seen := settings.mqa_logits_max_chunk_bytes) != limit:
                    wrong.append((limit, seen))
            if (seen := settings.mqa_logits_max_chunk_bytes) != 0:
                wrong.append((0, seen))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work, args=(limit,)) for limit in range(1, 9)]
    try:
        for thread in threads:
            thread.start()
    finally:
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not wrong
