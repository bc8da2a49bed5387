"""An override holds where it was made; this takes it along to threads, processes and programs."""

import asyncio
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from dsa_config import settings


def fused(_: object = None) -> bool:
    """What the work reads."""
    return settings.fuse_topk


async def in_threads_of_the_loop() -> list[bool]:
    """`to_thread` takes the context along by itself, `run_in_executor` does not."""
    loop = asyncio.get_running_loop()
    by_itself = await asyncio.to_thread(fused)
    without = await loop.run_in_executor(None, fused)
    carried = await loop.run_in_executor(None, settings.carry(fused))
    return [by_itself, without, carried]


def main() -> None:
    """Each line: what arrives without help, and what arrives when it is carried."""
    spawn = multiprocessing.get_context("spawn")
    with settings.override(fuse_topk=False):
        with ThreadPoolExecutor() as pool:
            seen = pool.submit(fused).result(), settings.carrying(pool).submit(fused).result()
            print("threads:", *seen)
            assert seen == (True, False)

        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            carried = list(settings.carrying(pool).map(fused, range(2)))
            print("processes:", pool.submit(fused).result(), *carried)
            assert carried == [False, False]

        program = [sys.executable, "-c", "from dsa_config import settings; print(settings.fuse_topk)"]
        told = subprocess.run(program, env=settings.child_env(), capture_output=True, text=True, check=True).stdout
        print("program:", told.strip())
        assert told.strip() == "False"

        seen_by_loop = asyncio.run(in_threads_of_the_loop())
        print("event loop:", *seen_by_loop)
        assert seen_by_loop == [False, True, False]


if __name__ == "__main__":
    main()
