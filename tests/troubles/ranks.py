"""Ranks that disagree, fail, or are lost."""

from __future__ import annotations

import torch.distributed as dist

from dsa_config import settings
from dsa_config.agreement import account_of, disagreements
from dsa_exec.runtime.distributed import (
    RankLost,
    RanksDisagree,
    RanksDisagreeWarning,
    agree,
)
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


@produces("RankLost")
def a_rank_that_is_gone():
    raise RankLost("agree()", 2, (0, 1, 2, 3), 30.0, 30.0)


@produces("NoProcessGroup")
def nobody_to_ask():
    agree()
