"""Attention heads shared out to the ranks of a tensor-parallel group, and what kernels make of so few of them.

The indexer's heads are not split: a score is a sum over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dsa_exec.core import flash_mla
from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.core.errors import DtypeError, RangeError, ShapeError
from dsa_exec.core.hardware import Capabilities
from dsa_exec.ops.sparse_mla_decode import launch as decode
from dsa_exec.ops.sparse_mla_prefill import launch as prefill
from dsa_exec.runtime.distributed.gathering import gather_in_place
from dsa_exec.runtime.distributed.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_JOIN = "HeadSplit.join"


@dataclass(frozen=True, slots=True)
class HeadSplit:
    """Which heads each rank of a group has: ranges in the order of ranks, the first of them longer by one if need be.

    Attributes:
        heads: of the whole model.
        world: ranks.

    Raises:
        RangeError: no heads, or more ranks than heads.
    """

    heads: int
    world: int

    def __post_init__(self) -> None:
        args = Arguments("HeadSplit")
        args.number(self.heads, "heads", low=1)
        args.number(self.world, "world", low=1)
        if self.world > self.heads:
            wanted = f"at most {self.heads}, so that each rank has one of the {self.heads} heads"
            raise RangeError("HeadSplit", "world", f"is {self.world}", wanted)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many heads each rank has. None has more than the first."""
        each, longer = divmod(self.heads, self.world)
        return tuple(each + (rank < longer) for rank in range(self.world))

    def of(self, rank: int) -> slice:
        """The heads of a rank, as it is numbered in the group.

        Raises:
            RangeError: there is no such rank.
        """
        Arguments("HeadSplit").number(rank, "rank", low=0, high=self.world - 1)
        first = sum(self.counts[:rank])
        return slice(first, first + self.counts[rank])

    def join(self, values: torch.Tensor, group: ProcessGroup | None = None) -> torch.Tensor:
        """All heads of something that each rank has for its own, such as what its attention gives. All ranks call it.

        Needed where what follows is not split by heads too: an output projection that is sums over the ranks instead.
        No gradient passes. It waits for nothing that the backend does not wait for, and may be captured.

        Args:
            values: float [t, h_local, ...], with the heads of this rank.
            group: the process group; the default group if not given.

        Returns:
            [t, heads, ...], the same bits on all ranks.

        Raises:
            ArgumentError: not this rank's number of heads, a group of another number of ranks, or no floats.
            NoProcessGroup: torch.distributed is not initialised, or this process is not of the group.
            RankLost: not all ranks took part within the timeout of the group, or in an earlier call.
        """
        ranks = Ranks.of(group, f"{_JOIN}()")
        if len(ranks.ranks) != self.world:
            wanted = f"{self.world}, which the heads are split among"
            raise RangeError(_JOIN, "group", f"has {len(ranks.ranks)} ranks", wanted)
        place = ranks.place
        count, most = self.counts[place], self.counts[0]
        if not isinstance(values, torch.Tensor) or values.dtype not in FLOAT_DTYPES:
            came = f"is {values.dtype if isinstance(values, torch.Tensor) else type(values).__name__}"
            raise DtypeError(_JOIN, "values", came.replace("torch.", ""), "a tensor of float32, bfloat16 or float16")
        if values.ndim < 2 or values.shape[1] != count:
            wanted = f"[t, {count}, ...]: rank {place} of {self.world} has {count} of {self.heads} heads"
            raise ShapeError(_JOIN, "values", f"has shape {list(values.shape)}", wanted)
        with torch.no_grad():
            shares = values.new_empty(self.world, values.shape[0], most, *values.shape[2:])
            shares[place, :, :count].copy_(values)
            if shares.numel():
                with ranks.together():
                    gather_in_place(shares, place, ranks.group)
            return torch.cat([share[:, :own] for share, own in zip(shares, self.counts, strict=True)], dim=1)


def kernel_heads(heads: int, hw: Capabilities) -> dict[str, dict[str, int]]:
    """How many heads each backend of the attention ops works on for so many: the rest are zeros, and cost as much.

    For DeepSeek's 512 latent and 64 RoPE channels. Whether a backend runs on the device at all is not asked.

    Args:
        heads: query heads of a call, such as `max(HeadSplit(128, 16).counts)`.
        hw: the device.

    Returns:
        By op and backend; without backends that take no such number.

    Raises:
        RangeError: no heads.
    """
    Arguments("kernel_heads").number(heads, "heads", low=1)
    portable = decode.portable_launch(1, heads, 1, flash_mla.VALUES, 64, wide=False, multiprocessors=1)
    blocks = {
        "sparse_mla_prefill": (prefill.hopper_launch(heads).heads, prefill.portable_launch(576, 512).heads),
        "sparse_mla_decode": (decode.hopper_launch(1, heads, 1, multiprocessors=1).heads, portable.heads),
    }
    found = {}
    for op, (hopper, plain) in blocks.items():
        found[op] = {"gluon": -(-heads // hopper) * hopper, "triton": -(-heads // plain) * plain, "torch": heads}
        if heads <= flash_mla.HEADS[-1]:
            found[op]["flash_mla"] = flash_mla.heads_taken(heads, hw, prefill=op == "sparse_mla_prefill")
    return found
