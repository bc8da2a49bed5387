"""What a rank that holds a part of the keys tells the others of its best ones: their scores, and their positions."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dsa_config import settings
from dsa_exec.core.checks import Arguments
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.layouts.key_split import KeyPart, check_part
from dsa_exec.ops.topk_candidates.custom_op import topk_candidates_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `topk_candidates`."""

    logits: torch.Tensor
    picked: torch.Tensor
    row_starts: torch.Tensor | None
    part: KeyPart = field(compare=False)  # no reason to choose another backend


def topk_candidates(
    logits: torch.Tensor, picked: torch.Tensor, part: KeyPart, *, row_starts: torch.Tensor | None = None
) -> torch.Tensor:
    """Scores of picked positions, and where in the whole request these are. `topk_merge` takes those of all parts.

    No gradient passes.

    Args:
        logits: f32 [t, s], rows as far apart as wanted: scores of the part's own keys.
        picked: int32 [t, k], what `topk` gave: positions in the row's window, -1 padded.
        part: which part of the keys it is.
        row_starts: int32 [t], where each row's window begins; 0 if not given.

    Returns:
        int32 [t, 2, k]: the bits of the scores, f32, which mean nothing where there is no position; then the positions
        in the whole request, -1 where nothing was picked, what was picked is outside the row, or the position is
        2^31 - 1 or more.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above, or (on the CPU, and elsewhere under
            `debug_check_indices`) a `row_starts` outside the row.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node():
        parts, block = part.split.parts, part.split.block
        if isinstance(block, torch.Tensor):
            return topk_candidates_node(logits, picked, parts, 0, block, part.part, row_starts)
        return topk_candidates_node(logits, picked, parts, block, None, part.part, row_starts)
    args = Arguments("topk_candidates")
    t, s = args.tensor(logits, "logits", "t s", dtype=torch.float32)
    args.tensor(picked, "picked", "t k", dtype=torch.int32)
    check_part(args, part, "part", t)
    if row_starts is not None:
        args.tensor(row_starts, "row_starts", "t", dtype=torch.int32)
        args.values(row_starts, "row_starts", low=0, high=s, on_accelerators=settings.debug_check_indices)
    with torch.no_grad():
        told: torch.Tensor = run("topk_candidates", Call(logits, picked, row_starts, part), logits.device)
    return told
