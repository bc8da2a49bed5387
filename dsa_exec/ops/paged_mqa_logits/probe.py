"""How many rows of a request deep_gemm takes as one row of its paged call, on a device: found by asking it.

It does not say, and builds differ. What is found is recorded by version in `core/deep_gemm_records.py`.
"""

from __future__ import annotations

import torch

from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.paged_schedule import PAGE_TOKENS
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.paged_mqa_logits import Call
from dsa_exec.ops.paged_mqa_logits.deep_gemm_kernel import logits_of_library
from dsa_exec.ops.paged_mqa_logits.schedule import Form, make_schedule

MOST = 4
"""The most rows a request that are tried."""

LENGTHS = (300, 65)
"""Of the requests: one of two shares of the work, and one of one."""

TOLERANCE = 5e-4
"""How far native logits may be from expanded ones, as a share of the largest."""


def probe_native_next_n(device: torch.device) -> tuple[int, ...]:
    """The numbers of rows, from 1 to 4, that deep_gemm takes natively on a device, and gets right.

    Compiles its kernels for each, which takes a minute where they are not compiled yet, and waits for the device.

    Args:
        device: a device that deep_gemm can use.

    Raises:
        ModuleNotFoundError: it is not installed.
        RuntimeError: it fails otherwise than by refusing the call.
    """
    hw = capabilities(device)
    hw.library("deep_gemm")
    return tuple(n for n in range(1, MOST + 1) if _takes(n, hw, device))


def _takes(n: int, hw: Capabilities, device: torch.device) -> bool:
    try:
        with torch.no_grad(), torch.cuda.device_of(torch.empty(0, device=device)):
            native, expanded = (_logits(form, n, hw, device) for form in ("native", "expanded"))
    except (AssertionError, RuntimeError) as error:
        if isinstance(error, AssertionError) or "assert" in str(error).lower():  # how it refuses
            return False
        raise
    scale = max(float(part.abs().max()) for part in expanded)
    return all(
        float((left - right).abs().max()) <= TOLERANCE * scale for left, right in zip(native, expanded, strict=True)
    )


def _logits(form: Form, n: int, hw: Capabilities, device: torch.device) -> list[torch.Tensor]:
    """The defined logits of each row, where all rows of a request see all of it."""
    generator, pages = torch.Generator().manual_seed(n), -(-max(LENGTHS) // PAGE_TOKENS)
    cache = random_index_k_cache(generator, IndexKLayout(), pages * len(LENGTHS), device)
    table = torch.randperm(pages * len(LENGTHS), generator=generator).view(len(LENGTHS), pages)
    q = torch.randn(len(LENGTHS), n, 32, cache.layout.head_dim, generator=generator).to(device).to(E4M3)
    weights = torch.randn(len(LENGTHS) * n, 32, generator=generator).to(device)
    lens = torch.tensor(LENGTHS, dtype=torch.int32)[:, None].repeat(1, n).to(device)
    table, width = table.to(device=device, dtype=torch.int32), pages * PAGE_TOKENS
    call = Call(q, cache, weights, lens, table, width, clean=False, out=None)
    schedule = make_schedule(form, lens, table, hw, longest=width, cache_pages=cache.data.shape[0])
    logits = logits_of_library(call, schedule, hw, width)
    return [logits[row, : LENGTHS[row // n]] for row in range(logits.shape[0])]
