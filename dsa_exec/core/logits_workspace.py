"""Memory for the logits of a call, kept for the next one: a context that grows does not ask for ever new sizes.

A thread has one for each device and stream, since the work of two threads may alternate on a stream. Its size is a
power of two where the budget has room for that, and never more than the last call's budget.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import torch

LOGIT_BYTES = 4
ALIGNED_LOGITS = 32
"""Rows begin at multiples of 128 bytes, where loads of any width may."""

LEAST_BYTES = 4096
LEAST_ROOM_BYTES = 2**20
"""Smaller tensors come from blocks that torch's allocator shares out among all."""


def workspace_row_bytes(width: int) -> int:
    """What a row of so many logits takes in a workspace."""
    return _stride(width) * LOGIT_BYTES


class LogitsWorkspace:
    """The memory of a call's logits, whose chunks write over each other.

    It belongs to the stream that is current when it is made: what reads it runs there before what writes it next.
    """

    __slots__ = ("_buffer", "_device", "_most_bytes", "_own_row_bytes")

    def __init__(self, device: torch.device) -> None:
        """Make one that holds nothing yet."""
        self._device = device
        self._buffer: torch.Tensor | None = None
        self._most_bytes = 0
        self._own_row_bytes = 0

    @property
    def bytes(self) -> int:
        """What it holds."""
        return 0 if self._buffer is None else self._buffer.nbytes

    def bound(self, most_bytes: int, own_row_bytes: int = 0, most_in_all: int | None = None) -> None:
        """Say what the next chunks may take: what is held beyond that is let go.

        Args:
            most_bytes: the most that it may hold.
            own_row_bytes: where a library allocates the logits itself, what it takes for a row.
            most_in_all: the most that all of this thread's workspaces on the device may hold.
        """
        self._most_bytes, self._own_row_bytes = most_bytes, own_row_bytes
        if self._buffer is not None and (own_row_bytes or self._buffer.nbytes > most_bytes):
            self._buffer = None
        if most_in_all is not None and len(_kept.workspaces) > 1:
            self._bound_others(most_in_all - most_bytes)

    def logits(self, rows: int, width: int) -> torch.Tensor | None:
        """Memory for a chunk, the same as before where it is large enough.

        Args:
            rows: how many.
            width: logits of a row.

        Returns:
            f32 [rows, width] with rows at multiples of 128 bytes, of any content; None where a library allocates the
            logits. Then torch's allocator has been made to hold a block for them, so that its blocks have few sizes.
        """
        if self._own_row_bytes:
            self._make_room(rows * self._own_row_bytes)
            return None
        stride = _stride(width)
        needed = rows * stride * LOGIT_BYTES
        if self._buffer is None or self._buffer.nbytes < needed:
            self._buffer = None  # before there is another
            # What is made under inference_mode could not be written to outside of it.
            with torch.inference_mode(mode=False):
                self._buffer = torch.empty(
                    self._rounded(needed) // LOGIT_BYTES, dtype=torch.float32, device=self._device
                )
        return self._buffer.as_strided((rows, width), (stride, 1))

    def release(self) -> None:
        """Let go of what is held."""
        self._buffer = None

    def _bound_others(self, most_bytes: int) -> None:
        others = [it for it in _kept.workspaces.values() if it is not self and it._device == self._device]
        if sum(it.bytes for it in others) > most_bytes:
            for it in others:
                it.release()

    def _rounded(self, needed: int) -> int:
        """A power of two, or what is needed where that would be too much."""
        rounded = 1 << max(needed - 1, LEAST_BYTES - 1).bit_length()
        return rounded if rounded <= self._most_bytes else needed

    def _make_room(self, needed: int) -> None:
        if self._device.type != "cpu" and needed >= LEAST_ROOM_BYTES:
            torch.empty(self._rounded(needed), dtype=torch.uint8, device=self._device)


class _Kept(threading.local):
    def __init__(self) -> None:
        self.workspaces: OrderedDict[tuple[torch.device, int], LogitsWorkspace] = OrderedDict()


_kept = _Kept()

MOST_KEPT = 8
"""Workspaces of a thread: one for each of so many streams."""


def kept_workspace(device: torch.device, *, on_cuda: bool) -> LogitsWorkspace:
    """This thread's workspace for the current stream of a device. Not for a capture, whose memory is the graph's."""
    stream = torch.cuda.current_stream(device).cuda_stream if on_cuda else 0
    key, workspaces = (device, stream), _kept.workspaces
    found = workspaces.get(key)
    if found is None:
        found = workspaces[key] = LogitsWorkspace(device)
        while len(workspaces) > MOST_KEPT:
            workspaces.popitem(last=False)
    return found


def kept_bytes(device: torch.device | None = None) -> int:
    """What this thread's workspaces hold, on all devices or on one."""
    return sum(it.bytes for (where, _), it in _kept.workspaces.items() if device in (None, where))


def forget_workspaces(device: torch.device | None = None) -> int:
    """Let go of this thread's workspaces, on all devices or on one: torch's allocator can give the memory out again.

    Returns:
        How many bytes they held.
    """
    held = kept_bytes(device)
    for (where, _), workspace in _kept.workspaces.items():
        if device in (None, where):
            workspace.release()
    return held


def _stride(width: int) -> int:
    return -(-width // ALIGNED_LOGITS) * ALIGNED_LOGITS
