"""What several processes do together. Nothing outside this package imports torch.distributed."""

from __future__ import annotations

from dsa_exec.runtime.distributed.agreement import (
    RanksDisagree,
    RanksDisagreeWarning,
    agree,
    broadcast_overrides,
)
from dsa_exec.runtime.distributed.attention_in_group import attention_in_group
from dsa_exec.runtime.distributed.head_split import HeadSplit, kernel_heads
from dsa_exec.runtime.distributed.index_rows import index_select_in_group
from dsa_exec.runtime.distributed.keys_in_group import index_select_over_keys
from dsa_exec.runtime.distributed.ranks import GroupGivenUp, NoProcessGroup, RankFailed, RankLost
from dsa_exec.runtime.distributed.row_split import RowSplit
from dsa_exec.runtime.distributed.stage_pools import StagePlan, StagePools, allocate_stage_pools, plan_stage_pools

__all__ = [
    "GroupGivenUp",
    "HeadSplit",
    "NoProcessGroup",
    "RankFailed",
    "RankLost",
    "RanksDisagree",
    "RanksDisagreeWarning",
    "RowSplit",
    "StagePlan",
    "StagePools",
    "agree",
    "allocate_stage_pools",
    "attention_in_group",
    "broadcast_overrides",
    "index_select_in_group",
    "index_select_over_keys",
    "kernel_heads",
    "plan_stage_pools",
]
