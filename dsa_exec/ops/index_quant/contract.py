"""What every backend of `index_quant` must get right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dsa_exec.dispatch.contract import Case, Contract, normal
from dsa_exec.layouts.index_k import IndexKLayout


def _random(
    rows: int,
    *,
    heads: int = 32,
    dtype: torch.dtype = torch.float32,
    layout: IndexKLayout | None = None,
    scale: Callable[[torch.Tensor], torch.Tensor] = lambda q: q,
    heads_first: bool = False,
) -> Callable[[torch.Generator, torch.device], dict[str, Any]]:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        q = scale(normal(generator, device, rows, heads, 128)).to(dtype)
        return {
            "q": q.transpose(0, 1).contiguous().transpose(0, 1) if heads_first else q,
            "weights": normal(generator, device, rows, heads, dtype=dtype),
            "layout": layout or IndexKLayout(),
        }

    return make


def _extremes(q: torch.Tensor) -> torch.Tensor:
    """Rows of zeros, below the floor, of one channel only, and of huge numbers."""
    q = q.clone()
    q[0] = 0
    q[1] *= 1e-6
    q[2, :, 1:] = 0
    q[3] *= 1e30
    return q


def _ramp(q: torch.Tensor) -> torch.Tensor:
    """Every head the same: from -64 up to 63, so that codes of every exponent occur."""
    return torch.arange(-64.0, 64.0, device=q.device).expand_as(q)


_ROUNDED = IndexKLayout(pow2_scale=True)
_ROTATED = IndexKLayout(hadamard=True)
_MODEL = IndexKLayout("model", element_bytes=4)

CONTRACT = Contract(
    op="index_quant",
    cases=(
        Case("ordinary", _random(5)),
        Case("one row", _random(1)),
        Case("no row", _random(0)),
        Case("64 heads in bf16", _random(3, heads=64, dtype=torch.bfloat16)),
        Case("one head in f16", _random(3, heads=1, dtype=torch.float16)),
        Case("24 heads that lie before the rows", _random(3, heads=24, heads_first=True)),
        Case("all equal", _random(2, heads=4, scale=torch.ones_like)),
        Case("mostly zeros", _random(2, scale=lambda q: q.where(q > 2, 0.0))),
        Case("a ramp", _random(2, heads=4, scale=_ramp, dtype=torch.bfloat16)),
        Case("extremes", _random(4, scale=_extremes)),
        Case("rounded scales", _random(4, layout=_ROUNDED)),
        Case("extremes with rounded scales", _random(4, layout=_ROUNDED, scale=_extremes)),
        # Sums in another order may fall to the other side of a rounding boundary: one step of e4m3 is 1/16.
        Case("rotated", _random(4, layout=_ROTATED), tolerance={"q": 1 / 15}),
        Case("nothing quantised", _random(3, layout=_MODEL)),
    ),
    result=lambda _, returned: {"q": returned[0].float(), "head_weights": returned[1]},
    tolerance={"head_weights": 1e-6},
)
