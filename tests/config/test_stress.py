"""Eight threads and two hundred tasks read, set, override, reload and change the environment at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from dsa_config import LiveSettings, Renamed, live, setting
from dsa_config.overrides import entered

SECONDS = 60.0
THREADS = 8
TASKS = 200


class Stressed(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="STRESSED_")

    mine: int = setting(-1)
    """Overridden by everybody, set by nobody."""
    left: int = setting(0)
    """Set together with `right`, always to the same number."""
    right: int = setting(0)
    low: int = setting(0)
    """In the file together with `high`, always to the same number."""
    high: int = setting(0)
    variable: int = setting(0, deprecated_names=[Renamed("STRESSED_OLD", since="9998", remove_in="9999")])
    """In the environment, always growing."""


stressed = live(Stressed)


class Trouble:
    """What went wrong, from any thread."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.steps = 0
        self.end = time.monotonic() + SECONDS

    def goes_on(self) -> bool:
        self.steps += 1
        return not self.found and time.monotonic() < self.end

    @contextlib.contextmanager
    def caught(self, who: str):
        try:
            yield
        except BaseException as error:  # told by the test, which fails on it
            self.found.append(f"{who}: {type(error).__name__}: {error}")

    def expect(self, holds: bool, told: str) -> None:
        if not holds:
            self.found.append(told)


def _overrides(trouble: Trouble, seed: int) -> None:
    """Own values, nested, with a body that sometimes raises."""
    rng = random.Random(seed)
    while trouble.goes_on():
        own = rng.randrange(10**6)
        with contextlib.suppress(KeyError), stressed.override(mine=own):
            trouble.expect(stressed.mine == own, f"read {stressed.mine}, overrode {own}")
            with stressed.override(mine=own + 1, left=-5):
                trouble.expect((stressed.mine, stressed.left) == (own + 1, -5), "the inner override does not hold")
            trouble.expect(stressed.mine == own, "the outer override does not hold again")
            if rng.random() < 0.3:
                raise KeyError
        trouble.expect(stressed.mine == -1, f"an override was left behind: {stressed.mine}")


def _sets(trouble: Trouble, seed: int) -> None:
    """Two settings together, which a snapshot never sees apart."""
    rng = random.Random(seed)
    while trouble.goes_on():
        number = rng.randrange(10**6)
        stressed.set(left=number, right=number)
        if rng.random() < 0.1:
            stressed.reset("left", "right")


def _reads(trouble: Trouble, _: int) -> None:
    """Snapshots are of one moment; single reads are values that somebody gave; the environment never goes back."""
    last = 0
    while trouble.goes_on():
        taken = stressed.snapshot()
        trouble.expect(taken.left == taken.right, f"torn: left {taken.left}, right {taken.right}")
        trouble.expect(taken.low == taken.high, f"torn: low {taken.low}, high {taken.high}")
        now = stressed.variable
        trouble.expect(now >= last, f"the environment went back from {last} to {now}")
        last = now


def _reloads(trouble: Trouble, seed: int, path: Path) -> None:
    """Good files and bad ones, of which nothing is taken."""
    rng = random.Random(seed)
    while trouble.goes_on():
        number = rng.randrange(10**6)
        path.write_text(f"low = {number}\nhigh = {number}\n" if rng.random() < 0.7 else "low = -1\nhigh = 'x'\n")
        with contextlib.suppress(ValueError):
            stressed.reload()
        trouble.expect(stressed.low >= 0, "a refused file was taken")


def _writes_the_environment(trouble: Trouble) -> None:
    """Now under one name, now under the other; its own next read sees it."""
    number = 0
    while trouble.goes_on():
        number += 1
        os.environ["STRESSED_VARIABLE"] = str(number)
        trouble.expect(stressed.variable == number, "the environment was not seen")
        if number % 10 == 0:
            number += 1
            os.environ["STRESSED_OLD"] = str(number)
            del os.environ["STRESSED_VARIABLE"]
            trouble.expect(stressed.variable == number, "the deprecated name was not seen")
            os.environ["STRESSED_VARIABLE"] = str(number)
            del os.environ["STRESSED_OLD"]


async def _task(trouble: Trouble, own: int) -> None:
    """Own values across suspensions, seen by the tasks that it starts."""
    while trouble.goes_on():
        with stressed.override(mine=own):
            await asyncio.sleep(0)
            trouble.expect(stressed.mine == own, f"task {own} read {stressed.mine}")
            trouble.expect(await asyncio.create_task(_read()) == own, "a child task has another value")
            trouble.expect(await asyncio.to_thread(lambda: stressed.mine) == own, "to_thread has another value")
        trouble.expect(stressed.mine == -1, "an override was left behind")
        await asyncio.sleep(0.01)


async def _read() -> int:
    return stressed.mine


async def _tasks(trouble: Trouble) -> None:
    await asyncio.gather(*(_task(trouble, own) for own in range(1000, 1000 + TASKS)))


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
def test_nothing_is_wrong_torn_or_left_behind(tmp_path):
    """For a minute: every read is right, every snapshot whole, and afterwards all is as it was."""
    trouble = Trouble()
    path = tmp_path / "stressed.toml"
    path.write_text("low = 0\nhigh = 0\n")
    stressed.load(file=path)

    def run(function, *arguments):
        with trouble.caught(function.__name__):
            function(trouble, *arguments)
        trouble.expect(entered.get() == (), f"{function.__name__} left a scope")

    work = [(_overrides, 1), (_overrides, 2), (_sets, 3), (_reads, 4), (_reads, 5), (_reloads, 6, path)]
    work += [(_writes_the_environment,)]
    threads = [threading.Thread(target=run, args=arguments) for arguments in work]
    threads.append(threading.Thread(target=lambda: run(lambda it: asyncio.run(_tasks(it)))))
    assert len(threads) == THREADS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.environ.pop("STRESSED_VARIABLE", None)
    os.environ.pop("STRESSED_OLD", None)
    stressed.reset()
    stressed.load()
    assert trouble.found == []
    assert trouble.steps > 1000
    assert stressed.snapshot() == Stressed()
