"""What the machine is and has: capabilities that do not change, and a memory reading that does.

Both are frozen, so that tests build them by hand. torch is imported inside the functions: planners read these types.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dsa_exec.core.host_memory import host_memory, host_total_bytes
from dsa_exec.core.vendors import InstalledVendors, Library, Missing, installed_version

if TYPE_CHECKING:
    import torch


MOST_BYTES_OF_32_BITS = 2**31 - 1
"""The largest tensor whose bytes signed 32 bits can number."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Facts about a device that backends ask for.

    Attributes:
        device_type: torch's name for the kind of device: cpu, cuda, xpu, ...
        arch: sm90, gfx942, ...; the device type where there is no finer name.
        torch_version: the running torch.
        triton_version: the installed triton, or None.
        is_hip: torch's `cuda` is ROCm here.
        multiprocessors: streaming multiprocessors (compute units on ROCm); 0 where torch does not say.
        vendors: vendor libraries by module name, each looked for when it is asked for (`core/vendors.py`).
    """

    device_type: str
    arch: str
    torch_version: str
    triton_version: str | None
    is_hip: bool = False
    multiprocessors: int = 0
    vendors: Mapping[str, Library | Missing] = field(default_factory=InstalledVendors, compare=False, repr=False)

    @property
    def most_tensor_bytes(self) -> int | None:
        """The largest tensor of logits that every kernel there can address; None: any.

        On ROCm stores beyond 2 GiB take a way on which kernels abort in the compiler, or are lost.
        """
        return MOST_BYTES_OF_32_BITS if self.is_hip else None

    def refuses_without(self, library: str) -> str | None:
        """Why a backend of a vendor's library cannot run; None if the library is there."""
        found = self.vendors[library]
        return found.reason if isinstance(found, Missing) else None

    def library(self, name: str) -> Library:
        """A vendor's library, for a backend that does not refuse.

        Raises:
            ModuleNotFoundError: it is not there.
        """
        found = self.vendors[name]
        if isinstance(found, Missing):
            raise ModuleNotFoundError(found.reason, name=name)
        return found


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """The memory of a device at one moment.

    Attributes:
        total_bytes: all there is.
        free_bytes: what the driver (the operating system, for the CPU) would give out.
        reusable_bytes: what is held and could be used without asking the driver: by torch's allocator, whatever the
            sizes of its unused blocks, and by workspaces of ours.
    """

    total_bytes: int
    free_bytes: int
    reusable_bytes: int = 0

    @property
    def available_bytes(self) -> int:
        """What a new tensor could come from: free or reusable."""
        return self.free_bytes + self.reusable_bytes


_assumed: ContextVar[Capabilities | None] = ContextVar("dsa_exec_assumed_capabilities", default=None)


def capabilities(device: torch.device) -> Capabilities:
    """The facts about a device, asked of it once; within `assumed`, those that are assumed."""
    return _assumed.get() or _capabilities(device)


@contextlib.contextmanager
def assumed(hw: Capabilities) -> Iterator[Capabilities]:
    """Act in this context as if every device were this one: to ask what would be chosen there, and for tests."""
    token = _assumed.set(hw)
    try:
        yield hw
    finally:
        _assumed.reset(token)


TRITON_DISTRIBUTIONS = ("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm", "amd-triton")
"""Packages that have the module `triton`: torch for ROCm brings one of another name."""


@functools.cache
def _capabilities(device: torch.device) -> Capabilities:
    import torch

    versions = torch.__version__, next(filter(None, map(installed_version, TRITON_DISTRIBUTIONS)), None)
    if device.type != "cuda":
        return Capabilities(device.type, device.type, *versions)
    properties = torch.cuda.get_device_properties(device)
    is_hip = torch.version.hip is not None
    arch = getattr(properties, "gcnArchName", "").split(":")[0]
    if not is_hip or not arch:
        arch = f"sm{properties.major}{properties.minor}"
    return Capabilities(device.type, arch, *versions, is_hip=is_hip, multiprocessors=properties.multi_processor_count)


def memory_reading(device: torch.device) -> MemoryReading:
    """The memory of a device as of now: driver and allocator on an accelerator, physical and available on the CPU.

    Asks the driver, which does not wait for the device, but must not be done while a graph is captured. What a process
    may take of a device (`torch.cuda.set_per_process_memory_fraction`) bounds what is free.
    """
    import torch

    if device.type == "cpu":
        return MemoryReading(*host_memory())
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # One question for both numbers: torch sorts hundreds of them for each that is asked for by name.
        held = torch.cuda.memory_stats_as_nested_dict(device)
        reserved = held["reserved_bytes"]["all"]["current"] if held else 0
        # Blocks that another stream may still read are active, though nobody owns them.
        active = held["active_bytes"]["all"]["current"] if held else 0
        return MemoryReading(total, _allowed(device, free, total, reserved), reserved - active)
    free, total = torch.accelerator.get_memory_info(device)
    reusable = torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)
    return MemoryReading(total, free, reusable)


def _allowed(device: torch.device, free: int, total: int, reserved: int) -> int:
    """What of the free memory torch's allocator lets this process have."""
    import torch

    fraction = getattr(torch.cuda, "get_per_process_memory_fraction", None)  # since torch 2.8
    if fraction is None or not torch.cuda.is_initialized() or (share := fraction(device)) >= 1:
        return free
    return max(0, min(free, int(total * share) - reserved))


def total_memory_bytes(device: torch.device) -> int:
    """All the memory of a device. Does not ask the driver, so it may be called while a graph is captured."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu":
        return host_total_bytes()
    return memory_reading(device).total_bytes


def is_capturing(device: torch.device) -> bool:
    """Whether the current stream of the device is capturing a CUDA graph."""
    import torch

    if device.type != "cuda":
        return False
    if device.index is None or device.index == torch.cuda.current_device():
        return torch.cuda.is_current_stream_capturing()
    with torch.cuda.device(device):  # torch asks the current device's stream
        return torch.cuda.is_current_stream_capturing()
