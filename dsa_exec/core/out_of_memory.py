"""What an out-of-memory error looks like, and what can be let go of when there is one."""

from __future__ import annotations

import torch

from dsa_exec.core.head_padding import forget_padding
from dsa_exec.core.logits_workspace import forget_workspaces

_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
"""How drivers, compilers of kernels and the CPU's allocator say it, in errors that have no type of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, from torch's allocator or from a kernel's launch."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


def release_memory(device: torch.device) -> None:
    """Let go of all that this thread keeps between calls, and of what torch's allocator keeps unused on the device.

    What belongs to other threads stays: they may be in a call.
    """
    forget_workspaces(device)
    forget_padding(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


def mib(size_bytes: int) -> str:
    """A number of bytes for people."""
    return f"{size_bytes / 2**20:.1f} MiB" if size_bytes >= 2**17 else f"{size_bytes} bytes"
