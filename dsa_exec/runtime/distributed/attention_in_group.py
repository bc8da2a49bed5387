"""Attention of ranks that each attended to their own part of the keys, put together by the sums of exponentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.core.errors import RangeError
from dsa_exec.ops.attention_merge import attention_merge
from dsa_exec.runtime.distributed.gathering import exchange, gather_in_place
from dsa_exec.runtime.distributed.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

NAME = "attention_in_group"
ALIGNED = 16
"""Bytes that kernels load at once."""


def attention_in_group(
    out: torch.Tensor,
    lse: torch.Tensor,
    *,
    group: ProcessGroup | None = None,
    heads: Literal["all", "own"] = "all",
    attn_sink: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over the keys of all ranks, from what each has of its own (`sparse_mla_decode`, without sink).

    No gradient passes. One collective, which may be captured; sums are taken in the order of ranks, so that all ranks
    get the same bits. They differ from those of one rank by the rounding of each part to its dtype, and of sums in
    another order.

    Args:
        out: float [t, h, d], over this rank's keys; the same rows and heads on all ranks.
        lse: f32 [t, h], the natural log of its sum of exponentials, -inf where it attended to nothing.
        group: the process group; the default group if not given.
        heads: "all": every rank gets all heads. "own": rank r gets the r-th of equal shares of them, and only these
            are sent.
        attn_sink: f32 [h], of all heads: one more score in each denominator, without a value.

    Returns:
        out [t, h, d] and lse f32 [t, h], without the sink; with "own" of h / world heads.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above; heads that cannot be shared out evenly.
        UnsupportedCall: no backend takes the call.
        NoProcessGroup: torch.distributed is not initialised, or this process is not of the group.
        RankLost: not all ranks took part within the timeout of the group, or in an earlier call.
    """
    args = Arguments(NAME)
    args.tensor(out, "out", "t h d", dtype=FLOAT_DTYPES)
    args.tensor(lse, "lse", "t h", dtype=torch.float32)
    count = args.sizes["h"]
    if attn_sink is not None:
        args.tensor(attn_sink, "attn_sink", "h", dtype=torch.float32)
    ranks = Ranks.of(group, f"{NAME}()")
    world, place = len(ranks.ranks), ranks.place
    if heads not in ("all", "own"):
        raise RangeError(NAME, "heads", f"is {heads!r}", "'all' or 'own'")
    if heads == "own" and count % world:
        wanted = f"heads='all', or a number of heads that {world} ranks share evenly"
        raise RangeError(NAME, "heads", f"is 'own' for {count} heads", wanted)
    with torch.no_grad():
        if heads == "own":
            told = _room(out, world, count // world)
            _tell(told, out.unflatten(1, (world, -1)).transpose(0, 1), lse.unflatten(1, (world, -1)).transpose(0, 1))
            received = torch.empty_like(told)
            with ranks.together():
                exchange(told, received, ranks.group)
            told = received
            if attn_sink is not None:
                attn_sink = attn_sink.unflatten(0, (world, -1))[place]
        else:
            told = _room(out, world, count)
            _tell(told[place], out, lse)
            with ranks.together():
                gather_in_place(told, place, ranks.group)
        size = out.shape[2] * out.element_size()
        return attention_merge(told[..., :size].view(out.dtype), _lses(told), attn_sink=attn_sink)


def _room(out: torch.Tensor, world: int, heads: int) -> torch.Tensor:
    """Where the parts of some heads go, as bytes: each row's output and behind it the lse, in whole numbers of 16."""
    size = -(-out.shape[2] * out.element_size() // ALIGNED) * ALIGNED
    return torch.empty(world, out.shape[0], heads, size + ALIGNED, dtype=torch.uint8, device=out.device)


def _tell(told: torch.Tensor, out: torch.Tensor, lse: torch.Tensor) -> None:
    size = out.shape[-1] * out.element_size()
    told[..., :size].view(out.dtype).copy_(out)
    _lses(told).copy_(lse)


def _lses(told: torch.Tensor) -> torch.Tensor:
    return told[..., -ALIGNED:].view(torch.float32)[..., 0]
