"""The hardware, the libraries, and hardware that is only assumed."""

from __future__ import annotations

import platform
import re
import warnings

import torch

from dsa_exec.cli.doctor.report import Accelerator, Assumed, Machine, Trouble, VendorLibrary
from dsa_exec.core.errors import DsaError
from dsa_exec.core.hardware import Capabilities, MemoryReading, capabilities, memory_reading
from dsa_exec.core.triton_support import is_interpreted
from dsa_exec.core.vendors import Library, Missing

MULTIPROCESSORS = {"sm90": 132, "sm100": 148, "gfx942": 304, "gfx950": 256}
"""Of the usual part of an architecture: H100 SXM, B200, MI300X, MI355X."""

_ARCH = re.compile(r"(?P<nvidia>sm[0-9]{2,3})|(?P<amd>gfx[0-9]{1,2}[0-9a-f]{2})|cpu")


class UnknownArchitecture(DsaError, ValueError):
    """A name that is no architecture: `arch`."""

    def __init__(self, arch: str) -> None:
        self.arch = arch
        super().__init__(f"--assume {arch}: is no architecture; wanted one such as sm90, sm100, gfx942, gfx950, or cpu")


def assumed_capabilities(arch: str) -> Capabilities:
    """The facts about hardware of an architecture, with the torch, Triton and vendor libraries of this process.

    Raises:
        UnknownArchitecture: the name is none.
    """
    named = _ARCH.fullmatch(arch)
    if named is None:
        raise UnknownArchitecture(arch)
    here = capabilities(torch.device("cpu"))
    kind = "cpu" if arch == "cpu" else "cuda"
    return Capabilities(
        kind,
        arch,
        here.torch_version,
        here.triton_version,
        is_hip=named["amd"] is not None,
        multiprocessors=MULTIPROCESSORS.get(arch, 0),
    )


def assumption(hw: Capabilities) -> Assumed:
    """Hardware that is assumed, for the report."""
    return Assumed(arch=hw.arch, is_hip=hw.is_hip, multiprocessors=hw.multiprocessors)


def gpu_is_usable() -> tuple[bool, list[Trouble]]:
    """Whether torch can use a GPU; and what it says about one that it cannot use, such as a driver that is too old."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    return usable, [_about_accelerator(str(it.message)) for it in said]


def machine(device: torch.device, accelerators: list[Accelerator]) -> tuple[Machine, list[Trouble]]:
    """What a device is and has, and what it is used with.

    Args:
        device: the device.
        accelerators: all that there are.
    """
    hw = capabilities(device)
    memory, troubles = _memory(device)
    is_interpreted, of_triton = _is_interpreted(hw)
    found = Machine(
        device=str(device),
        name=_name(device),
        arch=hw.arch,
        is_hip=hw.is_hip,
        multiprocessors=hw.multiprocessors,
        total_bytes=memory and memory.total_bytes,
        free_bytes=memory and memory.free_bytes,
        reusable_bytes=memory and memory.reusable_bytes,
        accelerators=accelerators,
        python=platform.python_version(),
        torch=hw.torch_version,
        torch_built_for=_built_for(),
        triton=hw.triton_version,
        triton_is_interpreted=is_interpreted,
    )
    return found, troubles + of_triton


def gpus() -> list[Accelerator]:
    """Every GPU, for a torch that can use them."""
    found = []
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        hw, properties = capabilities(device), torch.cuda.get_device_properties(device)
        found.append(
            Accelerator(
                device=str(device),
                name=properties.name,
                arch=hw.arch,
                multiprocessors=hw.multiprocessors,
                total_bytes=properties.total_memory,
            )
        )
    return found


def libraries(hw: Capabilities) -> tuple[list[VendorLibrary], list[Trouble]]:
    """Every vendor library; one that is there and fails to be imported is a trouble."""
    found = {name: hw.vendors[name] for name in hw.vendors}
    advice = "docs/vendors.md says which versions fit; backends that need it cannot run"
    missing = [it for it in found.values() if isinstance(it, Missing)]
    broken = [_broken_library(it.name, it.reason, advice) for it in missing if it.import_failed]
    return [_library(it) for it in found.values()], broken


def _library(it: Library | Missing) -> VendorLibrary:
    if isinstance(it, Missing):
        facts = {"distribution": None, "version": None, "generation": None, "file": None, "reason": it.reason}
        return VendorLibrary(name=it.name, usable=False, **facts)
    return VendorLibrary(
        name=it.name,
        usable=True,
        distribution=it.distribution,
        version=it.version,
        generation=it.generation,
        file=getattr(it.module, "__file__", None),
        reason=None,
    )


def _memory(device: torch.device) -> tuple[MemoryReading | None, list[Trouble]]:
    try:
        return memory_reading(device), []
    except (RuntimeError, NotImplementedError) as error:  # what torch raises for a device that does not tell
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return None, [_about_accelerator(f"{device} does not tell its memory: {reason}")]


def _about_accelerator(message: str) -> Trouble:
    return Trouble(severity="warning", kind="accelerator", name="torch", message=message, origin=None, suggestion=None)


def _built_for() -> str:
    if torch.version.hip is not None:
        return f"ROCm {torch.version.hip}"
    return "the CPU" if torch.version.cuda is None else f"CUDA {torch.version.cuda}"


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return (platform.machine() if device.type == "cpu" else "") or device.type


def _is_interpreted(hw: Capabilities) -> tuple[bool, list[Trouble]]:
    if hw.triton_version is None:
        return False, []
    try:
        return is_interpreted(), []
    except Exception as error:  # of code that is not ours: whatever its import raises
        told = f"Triton {hw.triton_version} is installed, and its import fails: {type(error).__name__}: {error}"
        return False, [_broken_library("triton", told, "kernels in Triton and Gluon cannot run")]


def _broken_library(name: str, message: str, suggestion: str) -> Trouble:
    return Trouble(
        severity="warning", kind="broken-library", name=name, message=message, origin=None, suggestion=suggestion
    )
