"""Watches what torch does: how many bytes of tensors live at once, and which operations run."""

from __future__ import annotations

import weakref
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Watch(TorchDispatchMode):
    """Counts the bytes of the storages that are made while it is entered.

    Attributes:
        calls: how often each operation ran, by name, such as `aten.topk`.
        peak_bytes: the most that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.peak_bytes = 0
        self._bytes: dict[int, int] = {}
        self._tensors: Counter[int] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func.overloadpacket)] += 1
        returned = func(*args, **(kwargs or {}))
        known = {it.untyped_storage()._cdata for it in tree_leaves((args, kwargs)) if isinstance(it, torch.Tensor)}
        for tensor in tree_leaves(returned):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor, known)
        return returned

    def _count(self, tensor: torch.Tensor, known: set[int]) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._bytes:
            if key in known:
                return  # a view of a tensor that was there before
            self._bytes[key] = storage.nbytes()
        self._tensors[key] += 1
        weakref.finalize(tensor, self._forget, key)
        self.peak_bytes = max(self.peak_bytes, sum(self._bytes.values()))

    def _forget(self, key: int) -> None:
        self._tensors[key] -= 1
        if not self._tensors[key]:
            del self._tensors[key], self._bytes[key]
