"""Query heads, padded for kernels that take only some numbers of them.

Padded heads are zeros. What they attend to is nobody's: whoever pads slices the result.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import torch

from dsa_exec.core.hardware import is_capturing

MOST_BYTES = 512 * 2**20
"""What a thread keeps of padding buffers. Each is as large as one call of a kernel, whose rows the caller bounds."""


def says_padding(heads: int, taken: int) -> str | None:
    """The padding in words; None if there is none."""
    return None if heads == taken else f"{heads} head{'s' if heads > 1 else ''} padded to {taken}"


def lies_together(values: torch.Tensor) -> bool:
    """Whether a tensor is contiguous, by its strides too, and begins where a copy of 16 bytes may.

    A tensor of one row is contiguous for torch whatever that row's stride is; a copy engine is told the stride, and
    takes multiples of 16 bytes.
    """
    apart = 1
    for size, stride in zip(reversed(values.shape), reversed(values.stride()), strict=True):
        if stride != apart:
            return False
        apart *= size
    return values.data_ptr() % 16 == 0


def pad_heads(values: torch.Tensor, taken: int) -> torch.Tensor:
    """Values with zeros for the heads that are missing; contiguous, and of an address that copy engines take.

    What is returned may be the same memory at the next call of the same thread on the same stream, which the work of
    this call comes before. While a graph is captured it is memory of the graph: a replay must find it as it left it.

    Args:
        values: [t, h, d], of any strides.
        taken: how many heads there have to be.

    Returns:
        [t, taken, d].
    """
    rows, heads, _ = values.shape
    if heads == taken:
        return values if lies_together(values) else values.clone(memory_format=torch.contiguous_format)
    padded = _zeroed(values, taken) if is_capturing(values.device) else _buffers.zeroed_beyond(values, taken)[:rows]
    padded[:, :heads].copy_(values)
    return padded


class _Buffers(threading.local):
    """The buffers of a thread. Another thread may be between its copy and its kernel on the same stream."""

    def __init__(self) -> None:
        self.kept: OrderedDict[tuple[object, ...], torch.Tensor] = OrderedDict()

    def zeroed_beyond(self, values: torch.Tensor, taken: int) -> torch.Tensor:
        """A buffer of at least as many rows, whose heads beyond those of the values are zero: nobody writes to them."""
        rows, heads, width = values.shape
        stream = torch.cuda.current_stream(values.device).cuda_stream if values.is_cuda else 0
        key = values.device, stream, heads, taken, width, values.dtype
        buffer = self.kept.pop(key, None)
        if buffer is None or buffer.shape[0] < rows:
            buffer = _zeroed(values, taken, rows=1 << max(rows - 1, 0).bit_length())
        self.kept[key] = buffer
        # The memory of a dropped buffer is given out again on its own stream, after the kernels that read it.
        while len(self.kept) > 1 and sum(it.nbytes for it in self.kept.values()) > MOST_BYTES:
            self.kept.popitem(last=False)
        return buffer


_buffers = _Buffers()


def forget_padding(device: torch.device) -> None:
    """Let go of this thread's buffers on a device, for memory to be had."""
    for key in [key for key in _buffers.kept if key[0] == device]:
        del _buffers.kept[key]


def _zeroed(values: torch.Tensor, taken: int, rows: int | None = None) -> torch.Tensor:
    # A tensor made under inference_mode could not be written to outside of it.
    with torch.inference_mode(mode=False):
        return values.new_zeros(values.shape[0] if rows is None else rows, taken, values.shape[2])
