"""One piece of work, by one GPU and in every way: first whether it is right, then how long it takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist

from benchmarks.ranks.record import RanksRow
from benchmarks.ranks.timing import RanksClock
from benchmarks.ranks.work import SharedWork


def measure(work: SharedWork, clock: RanksClock, *, inputs: int) -> Iterator[RanksRow]:
    """The rows of one piece of work; all ranks call it.

    Args:
        work: what is done.
        clock: times it.
        inputs: how many, made anew.
    """
    world = dist.get_world_size()
    given = [work.inputs(seed) for seed in range(inputs)]
    time = clock.replays if work.captured else clock.calls
    wanted = work.one(given[0])
    one = time(work.one, given)
    yield RanksRow(work=work.name, way="one GPU", gpus=1, us=one, one_us=one.median_us)
    for way, run in work.ways.items():
        bar = work.bars.get(way) if world == 2 else None
        row = RanksRow(work=work.name, way=way, gpus=world, one_us=one.median_us, least_speedup=bar)
        if (wrong := _first_of_all(work.same(way, given[0], run(given[0]), wanted))) is not None:
            yield row.model_copy(update={"wrong": wrong})
        else:
            yield row.model_copy(update={"us": time(run, given)})
    del given, wanted
    torch.cuda.empty_cache()


def _first_of_all(wrong: str | None) -> str | None:
    """What is wrong on the first rank that has something; the same on all ranks, which go on together."""
    told: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(told, wrong)
    return next((f"rank {rank}: {it}" for rank, it in enumerate(told) if it is not None), None)
