"""What every backend of `attention_merge` must get right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dsa_exec.dispatch.contract import Case, Contract, normal

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]
Change = Callable[[dict[str, Any]], None]


def _merge(
    parts: int,
    rows: int,
    heads: int,
    channels: int,
    *,
    dtype: torch.dtype = torch.float32,
    spread: float = 1.0,
    sink: bool = False,
    change: Change | None = None,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        args = {
            "outs": normal(generator, device, parts, rows, heads, channels, dtype=dtype),
            "lses": normal(generator, device, parts, rows, heads) * spread + 3,
        }
        if sink:
            args["attn_sink"] = normal(generator, device, heads) + 3
            args["attn_sink"][0] = -torch.inf  # as if there were none
        if change is not None:
            change(args)
        return args

    return make


def _nowhere(args: dict[str, Any], where: torch.Tensor) -> None:
    """Attend to nothing there, and leave what was in memory."""
    args["lses"].masked_fill_(where, -torch.inf)
    args["outs"].masked_fill_(where[..., None], torch.nan)


def _leave_gaps(args: dict[str, Any]) -> None:
    """Every third of a part's heads attended to nothing; the first row in its last part alone; the second nowhere."""
    lses = args["lses"]
    where = torch.arange(lses.numel(), device=lses.device).view(lses.shape) % 3 == 0
    where[:-1, 0], where[-1, 0], where[:, 1] = True, False, True
    _nowhere(args, where)


def _attend_to_nothing(args: dict[str, Any]) -> None:
    _nowhere(args, torch.ones_like(args["lses"], dtype=torch.bool))


def _make_equal(args: dict[str, Any]) -> None:
    args["lses"].fill_(2.5)


def _sink_nearly_all(args: dict[str, Any]) -> None:
    args["attn_sink"].add_(60)


def _keep_rows_outside(args: dict[str, Any]) -> None:
    """Heads of a row of all parts beside each other, as when ranks exchange heads; lses with heads outermost."""
    args["outs"] = args["outs"].permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
    args["lses"] = args["lses"].permute(2, 0, 1).contiguous().permute(1, 2, 0)


def _keep_heads_apart(args: dict[str, Any]) -> None:
    """Every second head of tensors that hold NaN elsewhere."""
    outs, lses = args["outs"], args["lses"]
    parts, rows, heads, channels = outs.shape
    wide = outs.new_full((parts, rows, 2 * heads, channels + 8), torch.nan)
    args["outs"] = wide[:, :, ::2, :channels].copy_(outs)
    args["lses"] = lses.new_full((parts, rows, 2 * heads), torch.nan)[:, :, ::2].copy_(lses)


_GROUPED = {"kernel_launch": "attention_merge.triton.heads=2"}
"""As where there are more heads than fill a device."""


def _bf16(name: str, *sizes: int, settings: dict[str, Any] | None = None, **options: Any) -> Case:
    """A case in bf16: its output is rounded to bf16, 2^-9 of each number."""
    make = _merge(*sizes, dtype=torch.bfloat16, **options)
    return Case(name, make, settings or {}, tolerance={"out": 8e-3})


CONTRACT = Contract(
    op="attention_merge",
    cases=(
        Case("two parts", _merge(2, 3, 2, 512)),
        Case("one part", _merge(1, 2, 4, 128)),
        Case("one row and one head", _merge(3, 1, 1, 512, sink=True)),
        Case("no row", _merge(2, 0, 4, 64)),
        Case("five parts, six heads", _merge(5, 1, 6, 64)),
        Case("17 parts", _merge(17, 1, 2, 16)),
        Case("attention sink", _merge(2, 2, 4, 128, sink=True)),
        Case("a sink that takes nearly all", _merge(2, 2, 3, 32, sink=True, change=_sink_nearly_all)),
        Case("parts that were not attended to", _merge(4, 3, 2, 64, change=_leave_gaps)),
        Case("nothing attended to", _merge(2, 2, 2, 32, sink=True, change=_attend_to_nothing)),
        Case("equal parts", _merge(4, 1, 4, 32, change=_make_equal)),
        Case("sums far apart", _merge(4, 1, 4, 32, spread=80.0)),
        Case("sums without a ratio in f32", _merge(4, 1, 4, 32, spread=1e4)),
        Case("20 channels", _merge(3, 3, 2, 20, sink=True, change=_leave_gaps)),
        Case("one channel", _merge(3, 2, 2, 1)),
        Case("1100 channels", _merge(3, 1, 2, 1100, sink=True)),
        Case("rows outside of parts", _merge(4, 2, 3, 64, change=_keep_rows_outside)),
        Case("heads apart", _merge(2, 2, 3, 64, sink=True, change=_keep_heads_apart)),
        Case("heads in groups", _merge(2, 2, 5, 64, sink=True), _GROUPED),
        Case("f16", _merge(2, 2, 4, 64, dtype=torch.float16, sink=True), tolerance={"out": 1e-3}),
        _bf16("bf16", 2, 2, 4, 512),
        _bf16("bf16, nine parts, heads in groups", 9, 3, 2, 64, change=_leave_gaps, settings=_GROUPED),
        _bf16("bf16, heads apart", 3, 2, 3, 72, sink=True, change=_keep_heads_apart),
    ),
    result=lambda _, returned: {"out": returned[0], "lse": returned[1]},
    tolerance={"out": 2e-6, "lse": 1e-6},
)
