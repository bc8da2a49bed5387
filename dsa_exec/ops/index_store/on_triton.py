"""`index_store` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

from dsa_exec.caches.addresses import refuses_addresses
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.ops.index_store import Call
from dsa_exec.ops.index_store.launch import portable_launch


def _refuses(call: Call, hw: Capabilities) -> str | None:
    return refuses_addresses(call.cache) or refuses_without_triton(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> None:
    if call.keys.shape[0] == 0:
        return
    from dsa_exec.ops.index_store.kernels.portable import launch_portable

    launch_portable(call, chosen_launch("index_store", "triton", portable_launch()))


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
