"""`step_metadata` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.ops.step_metadata import Call
from dsa_exec.ops.step_metadata.launch import portable_launch


def _refuses(_: Call, hw: Capabilities) -> str | None:
    return refuses_without_triton(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> None:
    if call.out.request_of_row.shape[0] == 0:
        for sums in (call.out.cu_cache_lens, call.out.cu_dsa_cache_lens):
            if sums is not None:
                sums.zero_()
        return
    from dsa_exec.ops.step_metadata.kernels.portable import launch_portable

    launch_portable(call, chosen_launch("step_metadata", "triton", portable_launch()))


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
