"""Ranks that disagree, fail, or are lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from dsa_config import settings
from dsa_config.agreement import account_of, disagreements
from dsa_exec import GatheredKeys, KeySplit
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_world import World
from dsa_exec.runtime.distributed import (
    RankLost,
    RanksDisagree,
    RanksDisagreeWarning,
    agree,
    attention_in_group,
    index_select_in_group,
    index_select_over_keys,
    plan_stage_pools,
)
from dsa_exec.runtime.distributed.ranks import Ranks
from troubles import produces


def _different(monkeypatch):
    here = account_of(settings)
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    return disagreements({0: here, 1: account_of(settings), 2: here, 3: here})


@produces("RanksDisagree")
def a_variable_of_one_rank(monkeypatch):
    raise RanksDisagree(_different(monkeypatch))


@produces("RanksDisagreeWarning")
def the_same_as_a_warning(monkeypatch):
    raise RanksDisagreeWarning(str(RanksDisagree(_different(monkeypatch))))


@produces("RankFailed")
def a_rank_that_cannot_read_its_settings(monkeypatch):
    monkeypatch.setenv("SGLANG_DSA_KV_FORMAT", "fp9")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        agree()
    finally:
        dist.destroy_process_group()


@dataclass
class _BesideAnother:
    """Rank 0 of two, which hears from the other what it says itself, but for something."""

    what: str
    of_the_other: Callable[[bytes], bytes]
    status: bytes = b"\0"
    ranks: tuple[int, ...] = (0, 1)
    rank: int = 0
    place: int = 0
    group: None = None

    def from_now(self) -> _BesideAnother:
        return self

    def gather_rows(self, row: bytes) -> dict[int, bytes]:
        return {0: row, 1: self.status + bytes(len(row) - 1)}

    def gather(self, said: bytes) -> dict[int, bytes]:
        return {0: said, 1: self.of_the_other(said)}


def _selection():
    ends = torch.full((100,), 300, dtype=torch.int32)
    return torch.randn(100, 8, 64), torch.randn(100, 8), GatheredKeys(torch.randn(300, 64), None, ends * 0, ends), 32


@produces("RankFailed")
def another_rank_without_memory(monkeypatch):
    words = b"OutOfMemory: index_select: out of memory on cuda:1"
    other = _BesideAnother("index_select_in_group()", lambda _: words, status=b"\1")
    monkeypatch.setattr(Ranks, "of", staticmethod(lambda *_: other))
    with settings.override(tp_index_rows="split"):
        index_select_in_group(*_selection())


@produces("RankFailed")
def another_rank_with_other_rows(monkeypatch):
    other = _BesideAnother("index_select_over_keys()", lambda said: said.replace(b"100 rows", b"99 rows"))
    monkeypatch.setattr(Ranks, "of", staticmethod(lambda *_: other))
    index_select_over_keys(*_selection(), KeySplit(2, 16))


@produces("RankFailed")
def another_rank_with_another_plan(monkeypatch):
    other = _BesideAnother("plan_stage_pools()", lambda said: said.replace(b'"kv": "\'fp8\'', b'"kv": "\'bf16\''))
    monkeypatch.setattr(Ranks, "of", staticmethod(lambda *_: other))
    geometry = geometry_of({"model_type": "deepseek_v32", "num_hidden_layers": 4}, "a dictionary")
    plan_stage_pools(geometry, World(pp=2), device="cpu", memory=MemoryReading(2**30, 2**30))


@produces("RankLost")
def a_rank_that_is_gone():
    raise RankLost("agree()", 2, (0, 1, 2, 3), 30.0, 30.0)


@produces("GroupGivenUp")
def a_group_that_lost_a_rank(monkeypatch):
    lost = RankLost("agree()", 2, (0, 1, 2, 3), 30.0, 30.0)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        monkeypatch.setattr("dsa_exec.runtime.distributed.ranks._given_up", {dist.group.WORLD: lost})
        attention_in_group(torch.zeros(1, 2, 4), torch.zeros(1, 2))
    finally:
        dist.destroy_process_group()


@produces("NoProcessGroup")
def nobody_to_ask():
    agree()
