"""What each rank has, given to all: one collective, whatever it is called in the running torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def gather_in_place(shares: torch.Tensor, place: int, group: ProcessGroup) -> None:
    """Fill in the other ranks' shares. Queued on the current stream where there is one; may be captured.

    Args:
        shares: contiguous [world, ...], in which a rank's own is there. All shares are of one size.
        place: of this rank in the group.
        group: the process group.
    """
    gather(shares[place], shares, group)


def gather(own: torch.Tensor, shares: torch.Tensor, group: ProcessGroup) -> None:
    """Fill in all ranks' shares, this one's too.

    Args:
        own: this rank's share, contiguous [n, ...], of one size on all ranks. It may lie in its place in `shares`.
        shares: contiguous [world, n, ...].
        group: the process group.
    """
    import torch.distributed as dist

    # Since torch 2.13 it has another name, and a warning under this one.
    all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    all_gather(shares.flatten(0, 1), own, group)


def exchange(shares: torch.Tensor, received: torch.Tensor, group: ProcessGroup) -> None:
    """Give each rank its share, and get one of each.

    Args:
        shares: contiguous [world, ...], what is for each rank, by its place in the group. All shares are of one size.
        received: contiguous [world, ...], to be filled.
        group: the process group.
    """
    import torch.distributed as dist

    dist.all_to_all_single(received, shares, group=group)
