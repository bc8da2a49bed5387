"""What every backend of `kv_store` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.caches.samples import poisoned_mla_cache
from dsa_exec.dispatch.contract import Case, Contract, index, normal
from dsa_exec.layouts.mla_kv import MlaLayout


def _store(
    slots: Sequence[int],
    *,
    layout: MlaLayout | None = None,
    dtype: torch.dtype = torch.float32,
    slot_dtype: torch.dtype = torch.int64,
    shape_values: Callable[[torch.Tensor], torch.Tensor] = lambda latent: latent,
) -> Callable[[torch.Generator, torch.device], dict[str, Any]]:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        laid = layout or MlaLayout()
        return {
            "cache": poisoned_mla_cache(laid, 3, device),
            "latent": shape_values(normal(generator, device, len(slots), laid.latent_dim)).to(dtype),
            "rope": normal(generator, device, len(slots), laid.rope_dim, dtype=dtype),
            "slots": index(device, *slots, dtype=slot_dtype),
        }

    return make


def _zero_groups(latent: torch.Tensor) -> torch.Tensor:
    """A row of zeros, and a row with one group of zeros and one below the floor."""
    latent = latent.clone()
    latent[0] = 0
    latent[1, 128:256] = 0
    latent[1, 256:384] *= 1e-6
    return latent


_MODEL = MlaLayout("model", latent_dim=32, rope_dim=16, element_bytes=4)
_NARROW = MlaLayout("model", latent_dim=24, rope_dim=5, element_bytes=4)

CONTRACT = Contract(
    op="kv_store",
    cases=(
        Case("page edges", _store((0, 63, 64, 127, 128, 191))),
        Case("one token", _store([130])),
        Case("no token", _store([])),
        Case("padding", _store([-1, 5, -1, 7])),
        Case("only padding", _store([-1, -1])),
        Case("slot 0 and padding", _store([-1, 0, -1])),
        Case("bf16", _store([3, 1, 2], dtype=torch.bfloat16)),
        Case("groups of zeros", _store([3, 1, 2], shape_values=_zero_groups)),
        Case("huge", _store([3, 1], shape_values=lambda latent: latent * 1e30)),
        Case("f16 and slots in int32", _store([3, -1, 2], dtype=torch.float16, slot_dtype=torch.int32)),
        Case("a whole page backwards", _store(range(63, -1, -1))),
        Case("256 and 6 channels", _store([0, 191, -1], layout=MlaLayout(latent_dim=256, rope_dim=6))),
        Case("nothing quantised", _store([0, 5], layout=_MODEL)),
        Case("nothing quantised of 24 and 5 channels", _store([190, -1], layout=_NARROW, dtype=torch.bfloat16)),
    ),
    result=lambda args, _: {"bytes": args["cache"].data.view(torch.uint8)},
)
