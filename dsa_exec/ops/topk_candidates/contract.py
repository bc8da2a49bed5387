"""What every backend of `topk_candidates` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.dispatch.contract import Case, Contract, index, normal, picks
from dsa_exec.layouts.key_split import KeyPart, KeySplit

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]


def _tell(
    rows: int,
    width: int,
    k: int,
    *,
    parts: int = 2,
    part: int = 1,
    block: int | Sequence[int] = 64,
    starts: Sequence[int] | None = None,
    picked: Sequence[Sequence[int]] | None = None,
    apart: bool = False,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        logits = torch.full((rows, width + 3 * apart), torch.nan, device=device)[:, :width]
        logits.copy_(normal(generator, device, rows, width))
        if width > 2:
            logits[:, :3] = torch.tensor([torch.inf, -0.0, torch.nan], device=device)
        if picked is not None:
            chosen = torch.tensor(picked, dtype=torch.int32).reshape(rows, k)
        else:
            chosen = picks(generator, rows, k, width).sort(dim=1).values.to(torch.int32)
            if k:
                chosen[:, -1:] = -1
        if apart:
            chosen = torch.cat([chosen, chosen], dim=1)[:, :k]
        of_rows = block if isinstance(block, int) else index(device, *block)
        args = {"logits": logits, "picked": chosen.to(device), "part": KeyPart(KeySplit(parts, of_rows), part)}
        if starts is not None:
            args["row_starts"] = index(device, *starts)
        return args

    return make


def _result(_: dict[str, Any], told: torch.Tensor) -> dict[str, torch.Tensor]:
    """Scores of what there is: of what there is none, they mean nothing."""
    bits, positions = told[:, 0], told[:, 1]
    return {"bits": bits.where(positions >= 0, 0), "positions": positions}


CONTRACT = Contract(
    op="topk_candidates",
    cases=(
        Case("one block a part", _tell(3, 60, 16)),
        Case("pages in turn", _tell(3, 200, 32, parts=4, part=2, block=16)),
        Case("tokens in turn", _tell(3, 200, 32, parts=3, part=0, block=1)),
        Case("one part", _tell(3, 200, 32, parts=1, part=0, block=7)),
        Case("blocks of rows", _tell(3, 200, 32, block=(1, 64, 100))),
        Case("windows", _tell(3, 200, 4, starts=(0, 150, 196), picked=[[0, 1, 2, -1], [3, 49, 50, 60], [0, 3, 4, -1]])),
        Case("what is outside", _tell(2, 9, 4, picked=[[-1, -7, 8, 9], [2**31 - 1, 0, -(2**31), 1]])),
        Case("far positions", _tell(1, 9, 3, block=2**30, picked=[[0, 1, 8]])),
        Case("positions that cannot be", _tell(1, 9, 3, parts=9, part=8, block=2**29, picked=[[0, 1, 8]])),
        Case("no row", _tell(0, 60, 16)),
        Case("no column", _tell(2, 0, 1, picked=[[-1], [0]])),
        Case("nothing picked", _tell(2, 60, 0, picked=[[], []])),
        Case("the greatest k", _tell(2, 5000, 4096, block=1)),
        Case("rows of another stride", _tell(3, 200, 32, apart=True)),
    ),
    result=_result,
)
