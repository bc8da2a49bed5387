"""Attention over parts of the keys put together: of each part the output and its log-sum-exp, of all of them both."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.core.errors import ShapeError
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.attention_merge.custom_op import attention_merge_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `attention_merge`."""

    outs: torch.Tensor
    lses: torch.Tensor
    attn_sink: torch.Tensor | None


def attention_merge(
    outs: torch.Tensor, lses: torch.Tensor, *, attn_sink: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention of each query over all keys, from what it is over each of several parts that share none.

    Sums are in f32, in the order of parts: the same parts in the same order give the same bits, on whichever rank and
    beside whichever rows. Without a sink, a query that attended in one part alone gets what that part has, to the bit.

    Args:
        outs: float [p, t, h, d], the attention over each part, without a sink; parts, rows and heads as far apart as
            wanted.
        lses: f32 [p, t, h], with any strides: the natural log of the sum of exponentials over each part, without a
            sink. -inf where a query attended to nothing of it: what `outs` has there, NaN even, is not looked at.
        attn_sink: f32 [h]: one more score in each head's denominator, without a value, once for all parts.

    Returns:
        out: [t, h, d], of outs' dtype; zeros where a query attended to nothing of any part.
        lse: f32 [t, h], the natural log of the sum of exponentials without the sink; -inf where it attended to nothing.
            One lse of NaN or +inf makes both NaN: with it no share of any part is known.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above; no part, or no channel.
        UnsupportedCall: no backend takes the call.
    """
    if torch.compiler.is_compiling() and is_one_node(outs, lses, attn_sink):
        return attention_merge_node(outs, lses, attn_sink)
    args = Arguments("attention_merge")
    parts, _, _, channels = args.tensor(outs, "outs", "p t h d", dtype=FLOAT_DTYPES)
    if parts == 0 or channels == 0:
        raise ShapeError(args.op, "outs", f"has shape {list(outs.shape)}", "at least one part and one channel")
    args.tensor(lses, "lses", "p t h", dtype=torch.float32, any_stride=True)
    if attn_sink is not None:
        args.tensor(attn_sink, "attn_sink", "h", dtype=torch.float32)
    merged: tuple[torch.Tensor, torch.Tensor] = run("attention_merge", Call(outs, lses, attn_sink), outs.device)
    return merged
