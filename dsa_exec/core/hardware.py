"""What the machine is and has: capabilities that do not change, and a memory reading that does.

Both are frozen, so that tests build them by hand. torch is imported inside the functions: planners read these types.
"""

from __future__ import annotations

import functools
import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsa_exec.core.host_memory import host_memory

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Facts about a device that backends ask for.

    Attributes:
        device_type: torch's name for the kind of device: cpu, cuda, xpu, ...
        arch: sm90, gfx942, ...; the device type where there is no finer name.
        torch_version: the running torch.
        triton_version: the installed triton, or None.
    """

    device_type: str
    arch: str
    torch_version: str
    triton_version: str | None


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """The memory of a device at one moment.

    Attributes:
        total_bytes: all there is.
        free_bytes: what the driver (the operating system, for the CPU) would give out.
        reusable_bytes: what torch's allocator holds and could give out again without asking the driver.
    """

    total_bytes: int
    free_bytes: int
    reusable_bytes: int = 0

    @property
    def available_bytes(self) -> int:
        """What a new tensor could come from: free or reusable."""
        return self.free_bytes + self.reusable_bytes


def capabilities(device: torch.device) -> Capabilities:
    """The facts about a device, asked of it once."""
    return _capabilities(device.type, device.index)


@functools.cache
def _capabilities(device_type: str, index: int | None) -> Capabilities:
    import torch

    arch = device_type
    if device_type == "cuda":
        properties = torch.cuda.get_device_properties(index)
        arch = getattr(properties, "gcnArchName", "").split(":")[0]
        if torch.version.hip is None or not arch:
            arch = f"sm{properties.major}{properties.minor}"
    return Capabilities(device_type, arch, torch.__version__, _version("triton"))


def memory_reading(device: torch.device) -> MemoryReading:
    """The memory of a device as of now: driver and allocator on an accelerator, physical and available on the CPU.

    Asks the driver, so it must not be called while a graph is captured.
    """
    import torch

    if device.type == "cpu":
        return MemoryReading(*host_memory())
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free, total = torch.accelerator.get_memory_info(device)
        reusable = torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)
    return MemoryReading(total, free, reusable)


def total_memory_bytes(device: torch.device) -> int:
    """All the memory of a device. Does not ask the driver, so it may be called while a graph is captured."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return memory_reading(device).total_bytes


def is_capturing(device: torch.device) -> bool:
    """Whether the current stream of the device is capturing a CUDA graph."""
    import torch

    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


_VENDORS = ("sgl-deep-gemm", "tokenspeed-deepgemm", "sgl-flash-mla", "tokenspeed-flashmla", "amd-aiter")


def vendor_versions() -> dict[str, str]:
    """The vendor kernel packages that are installed, each with its version."""
    found = {distribution: _version(distribution) for distribution in _VENDORS}
    return {distribution: version for distribution, version in found.items() if version is not None}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
