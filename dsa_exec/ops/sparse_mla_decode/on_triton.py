"""`sparse_mla_decode` in plain Triton, for both formats of the cache and every shape and dtype."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.sparse_mla_decode import Call
from dsa_exec.ops.sparse_mla_decode.launch import portable_launch


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    from dsa_exec.ops.sparse_mla_decode.kernels.portable import attend, product_dtypes

    rows, heads, _ = call.q.shape
    layout = call.cache.layout
    launch = portable_launch(
        rows,
        heads,
        call.slots.shape[1],
        layout.latent_dim,
        layout.rope_dim,
        wide=product_dtypes(call, bf16=False)[0] == torch.float32,
        multiprocessors=torch.cuda.get_device_properties(call.q.device).multi_processor_count if call.q.is_cuda else 1,
    )
    return attend(call, chosen_launch("sparse_mla_decode", "triton", launch))


def _refuses(call: Call, hw: Capabilities) -> str | None:
    return refuses_without_triton(hw) or refuses_gradients(call)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
