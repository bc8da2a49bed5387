"""Whether a Triton kernel can run on a device, and whether `auto` should want it to."""

from __future__ import annotations

import re

from dsa_exec.core.hardware import Capabilities

OLDEST = (3, 6)
"""The oldest Triton whose compiler and interpreter the kernels were run with."""


def is_interpreted() -> bool:
    """Whether kernels that are defined from now on run under Triton's interpreter, on tensors of the CPU."""
    import triton.knobs

    return bool(triton.knobs.runtime.interpret)


def refuses_old_triton(hw: Capabilities) -> str | None:
    """Why no Triton kernel can run at all, compiled or interpreted; None if they can."""
    if hw.triton_version is None:
        return "Triton is not installed"
    if tuple(int(part) for part in re.findall(r"\d+", hw.triton_version)[:2]) < OLDEST:
        return f"Triton {hw.triton_version} is installed; these kernels take {OLDEST[0]}.{OLDEST[1]} or newer"
    return None


def refuses_without_triton(hw: Capabilities) -> str | None:
    """Why Triton kernels cannot run on the device; None if they can."""
    if (sentence := refuses_old_triton(hw)) is not None:
        return sentence
    if hw.device_type == "cpu" and not is_interpreted():
        return "on the CPU Triton only runs under its interpreter (TRITON_INTERPRET=1 before Triton is imported)"
    if hw.device_type not in ("cpu", "cuda"):
        return f"these kernels were not written for {hw.device_type}"
    if hw.device_type == "cuda" and is_interpreted():
        return "TRITON_INTERPRET=1 is set: kernels are interpreted on the CPU"
    return None


def declines_off_gpu(hw: Capabilities) -> str | None:
    """Why `auto` passes on a Triton kernel: off a GPU there is only the interpreter, which is slower than torch."""
    return None if hw.device_type == "cuda" else f"interpreted on the {hw.device_type}, slower than torch"


def refuses_without_hopper(hw: Capabilities) -> str | None:
    """Why kernels in Gluon for Hopper's matrix units and copy engine cannot run on the device; None if they can."""
    if hw.arch != "sm90":
        return f"arch={hw.arch}: this kernel is written for sm90"
    return refuses_without_triton(hw)


def declines_off_hopper(hw: Capabilities) -> str | None:
    """Why `auto` passes on a kernel for Hopper: the device is another, so that nothing is missed."""
    return None if hw.arch == "sm90" else f"for sm90, this is {hw.arch}"


def multiplies_e4m3(arch: str) -> bool:
    """Whether Triton takes e4m3 (`fn`) as it is: NVIDIA since sm89, AMD since gfx950."""
    nvidia = re.fullmatch(r"sm(\d+)", arch)
    return int(nvidia[1]) >= 89 if nvidia else arch.startswith(("gfx95", "gfx12"))
