"""Plain calls of the ops that aiter has backends of, and what comes of them by its name."""

from __future__ import annotations

import pytest
import torch

import dsa_exec
from dsa_config import settings
from dsa_exec import IndexKCache
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.core.numerics import E4M3, quantise_e4m3
from dsa_exec.layouts.index_k import IndexKLayout

CPU = torch.device("cpu")
PRESHUFFLED = IndexKLayout(order="preshuffled")
OPS = ("index_store", "index_gather", "mqa_logits", "paged_mqa_logits", "topk")


def ints(*numbers: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype)


def cache_of(layout: IndexKLayout = PRESHUFFLED, pages: int = 4) -> IndexKCache:
    return random_index_k_cache(torch.Generator().manual_seed(3), layout, pages, CPU)


def call(op: str, layout: IndexKLayout = PRESHUFFLED, **changes):
    """A plain call of an op; the cache in a layout that aiter takes."""
    generator = torch.Generator().manual_seed(4)
    q = torch.randn(2, 32, 128, generator=generator).to(E4M3)
    weights = torch.randn(2, 32, generator=generator)
    keys, scales = quantise_e4m3(torch.randn(9, 128, generator=generator), 128)
    arguments = {
        "index_store": lambda: {"cache": cache_of(layout), "keys": torch.randn(2, 128), "slots": ints(70, 3)},
        "index_gather": lambda: {
            "cache": cache_of(layout),
            "page_table": ints(2, 0).view(2, 1),
            "seq_lens": ints(5, 3),
        },
        "mqa_logits": lambda: {
            "q": q,
            "keys": keys,
            "scales": scales[:, 0],
            "head_weights": weights,
            "starts": ints(0, 2),
            "ends": ints(9, 7),
        },
        "paged_mqa_logits": lambda: {
            "q": q[:, None],
            "cache": cache_of(layout),
            "head_weights": weights,
            "context_lens": ints(9, 3).view(2, 1),
            "page_table": ((ints(2, 0)[:, None] + torch.arange(-(-12 // layout.page_tokens))) % 4).int(),
            "max_context_len": 12,
        },
        "topk": lambda: {"logits": torch.randn(2, 9, generator=generator), "lengths": ints(9, 3), "k": 4},
    }
    return getattr(dsa_exec, op)(**{**arguments[op](), **changes})


def by_aiter(op: str, hw: Capabilities, *args, **changes):
    with assumed(hw), settings.override(**{f"{op}_backend": "aiter"}):
        return call(op, *args, **changes)


def refusal(op: str, hw: Capabilities, *args, **changes) -> str:
    """Why aiter refuses a call, in words."""
    with pytest.raises(UnsupportedCall) as caught:
        by_aiter(op, hw, *args, **changes)
    ((name, sentence),) = caught.value.refusals
    assert name == "aiter"
    return sentence
