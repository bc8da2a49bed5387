"""What several processes do together. Nothing outside this package imports torch.distributed."""

from __future__ import annotations

from dsa_exec.runtime.distributed.agreement import (
    RanksDisagree,
    RanksDisagreeWarning,
    agree,
    broadcast_overrides,
)
from dsa_exec.runtime.distributed.ranks import NoProcessGroup, RankFailed, RankLost

__all__ = [
    "NoProcessGroup",
    "RankFailed",
    "RankLost",
    "RanksDisagree",
    "RanksDisagreeWarning",
    "agree",
    "broadcast_overrides",
]
