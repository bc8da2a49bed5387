"""Score gathered keys for each query row (prefill)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.mqa_logits.custom_op import mqa_logits_node, mqa_logits_out_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `mqa_logits`."""

    q: torch.Tensor
    keys: torch.Tensor
    scales: torch.Tensor | None
    head_weights: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    clean: bool
    out: torch.Tensor | None


def mqa_logits(
    q: torch.Tensor,
    keys: torch.Tensor,
    scales: torch.Tensor | None,
    head_weights: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    *,
    clean: bool = True,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Indexer scores: logits[i, j] = scales[j] * sum over h of head_weights[i, h] * relu(q[i, h] . keys[j]).

    Args:
        q: e4m3 [t, h, d], or float where nothing is quantised.
        keys: [s, d], of q's dtype.
        scales: f32 [s], or None where nothing is quantised.
        head_weights: f32 [t, h], with the queries' scales folded in (`index_quant`).
        starts: int32 [t], the first key visible to each row.
        ends: int32 [t], one past the last. Rows may see nothing.
        clean: write -inf where a row sees nothing. Otherwise those cells are undefined, and every reader must keep
            to `starts` and `ends`.
        out: f32 [t, s] to write into, rows as far apart as wanted.

    Returns:
        f32 [t, s]: `out`, or a new tensor, whose rows may be further apart than they are wide.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above, or (on the CPU, and elsewhere under
            `debug_check_indices`) a window outside the keys. Unchecked, such a window is cut to the keys.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node(q, keys, scales, head_weights):
        if out is None:
            return mqa_logits_node(q, keys, scales, head_weights, starts, ends, clean)
        mqa_logits_out_node(q, keys, scales, head_weights, starts, ends, clean, out)
        return out
    args = Arguments("mqa_logits")
    args.tensor(q, "q", "t h d", dtype=(E4M3, *FLOAT_DTYPES))
    key_count, _ = args.tensor(keys, "keys", "s d", dtype=q.dtype)
    args.scales(scales, "scales", keys)
    args.tensor(head_weights, "head_weights", "t h", dtype=torch.float32)
    for name, bound in (("starts", starts), ("ends", ends)):
        args.tensor(bound, name, "t", dtype=torch.int32)
        args.values(bound, name, low=0, high=key_count, on_accelerators=settings.debug_check_indices)
    if out is not None:
        args.tensor(out, "out", "t s", dtype=torch.float32)
        args.rows_apart(out, "out")
    logits: torch.Tensor = run("mqa_logits", Call(q, keys, scales, head_weights, starts, ends, clean, out), q.device)
    return logits
