"""Argument checks that bind dimension names: what a docstring promises about shapes is said once, in one call."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from dsa_exec.core.errors import DeviceError, DtypeError, RangeError, ShapeError, StrideError
from dsa_exec.core.numerics import E4M3

INDEX_DTYPES = (torch.int32, torch.int64)
FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_K = 4096
"""How many positions a row can select at most."""


class Arguments:
    """Checks the arguments of one call of an op. A dimension named twice must have the same size both times.

    Attributes:
        sizes: the size of each dimension name seen so far.
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self.sizes: dict[str, int] = {}
        self._device: torch.device | None = None
        self._named = ""

    def tensor(
        self,
        value: torch.Tensor,
        name: str,
        dims: str,
        *,
        dtype: torch.dtype | Sequence[torch.dtype],
        any_stride: bool = False,
    ) -> tuple[int, ...]:
        """Check one tensor and return its sizes.

        Args:
            value: the tensor.
            name: what the caller calls it.
            dims: a name or a number for each dimension, such as `"t h 128"`.
            dtype: the dtypes it may have.
            any_stride: allow a last dimension whose elements do not lie side by side.

        Raises:
            DtypeError, ShapeError, StrideError, DeviceError: it is not as described.
        """
        wanted = (dtype,) if isinstance(dtype, torch.dtype) else dtype
        if not isinstance(value, torch.Tensor):
            raise DtypeError(self.op, name, f"is {type(value).__name__}", f"a tensor of {_names(wanted)}")
        if value.dtype not in wanted:
            raise DtypeError(self.op, name, f"is {_name(value.dtype)}", _names(wanted))
        shape, dimensions = value.shape, _dimensions(dims)
        if len(shape) != len(dimensions):
            raise ShapeError(self.op, name, f"has shape {list(shape)}", f"[{', '.join(dims.split())}]")
        for (dim, number), size in zip(dimensions, shape, strict=True):
            expected = self.sizes.setdefault(dim, size) if number is None else number
            if size != expected:
                self._refuse_shape(value, name, dims)
        if shape and shape[-1] > 1 and not any_stride and value.stride(-1) != 1:
            came = f"has strides {list(value.stride())}"
            raise StrideError(self.op, name, came, "a last dimension with stride 1 (call .contiguous())")
        self.device(value, name)
        return shape

    def device(self, value: torch.Tensor, name: str) -> None:
        """Check that a tensor is where the others are.

        Raises:
            DeviceError: it is not.
        """
        device = value.device
        if self._device is None:
            self._device, self._named = device, name
        elif device != self._device:
            raise DeviceError(self.op, name, f"is on {device}", f"{self._device}, where {self._named} is")

    def kind(self, value: Any, name: str, kind: type) -> None:
        """Check that an argument is an object of a class.

        Raises:
            DtypeError: it is not.
        """
        if not isinstance(value, kind):
            raise DtypeError(self.op, name, f"is {type(value).__name__}", kind.__name__)

    def real(self, value: float, name: str) -> float:
        """Check one number that need not be whole.

        Raises:
            RangeError: it is no number, NaN or infinite.
        """
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise RangeError(self.op, name, f"is {value!r}", "a finite number")
        return value

    def scales(self, scales: torch.Tensor | None, name: str, keys: torch.Tensor) -> None:
        """Check that keys have scales, f32 [s], exactly if they are e4m3.

        Raises:
            DtypeError, ShapeError, StrideError, DeviceError: they have not.
        """
        if (scales is None) != (keys.dtype != E4M3):
            came = "is None" if scales is None else "is given"
            raise DtypeError(self.op, name, came, "scales with e4m3 keys, None with keys of the model's dtype")
        if scales is not None:
            self.tensor(scales, name, "s", dtype=torch.float32)

    def rows_apart(self, value: torch.Tensor, name: str) -> None:
        """Check that the rows of a matrix that is written to do not share memory.

        Raises:
            StrideError: they do.
        """
        if value.shape[0] > 1 and value.stride(0) < value.shape[1]:
            wanted = f"rows at least {value.shape[1]} elements apart, so that none overlap"
            raise StrideError(self.op, name, f"has strides {list(value.stride())}", wanted)

    def number(self, value: int, name: str, *, low: int, high: int | None = None) -> int:
        """Check one integer.

        Raises:
            RangeError: it is no integer, or outside [low, high].
        """
        limits = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
            raise RangeError(self.op, name, f"is {value!r}", limits)
        return value

    def values(self, value: torch.Tensor, name: str, *, low: int, high: int, on_accelerators: bool) -> None:
        """Check that every number in an index tensor lies in [low, high].

        Args:
            value: the tensor.
            name: what the caller calls it.
            low: least value allowed.
            high: greatest value allowed.
            on_accelerators: check there too, at the price of a host synchronisation. On the CPU it is always done.

        Raises:
            RangeError: one of them does not.
        """
        if not (value.is_cpu or on_accelerators) or value.numel() == 0:
            return
        bad = (value < low) | (value > high)
        if bool(bad.any()):
            place = [int(axis) for axis in bad.nonzero()[0]]
            raise RangeError(self.op, name, f"holds {int(value[tuple(place)])} at {place}", f"{low} to {high}")

    def total(self, lens: torch.Tensor, name: str, given: int | None, *, on_accelerators: bool) -> int:
        """The sum of a tensor of lengths: as given, or read from the device, which waits for it.

        Args:
            lens: int [b].
            name: what the caller calls it.
            given: the sum, if the caller knows it.
            on_accelerators: check the lengths and the given sum there too. On the CPU it is always done.

        Raises:
            RangeError: a negative length, or a given sum that is not the sum.
        """
        self.values(lens, name, low=0, high=2**31 - 1, on_accelerators=on_accelerators)
        if given is not None:
            self.number(given, "total_tokens", low=0)
            if not (lens.is_cpu or on_accelerators):
                return given
        total = int(lens.sum())
        if given is not None and given != total:
            raise RangeError(self.op, "total_tokens", f"is {given}", f"{total}, the sum of {name}")
        return total

    def _refuse_shape(self, value: torch.Tensor, name: str, dims: str) -> NoReturn:
        """Tell the first dimension that does not fit."""
        dimensions, shape = _dimensions(dims), list(value.shape)
        expected = [
            self.sizes.get(dim, size) if number is None else number
            for (dim, number), size in zip(dimensions, shape, strict=True)
        ]
        axis = next(axis for axis, size in enumerate(shape) if size != expected[axis])
        described = ", ".join(f"{dim}={self.sizes[dim]}" if dim in self.sizes else dim for dim, _ in dimensions)
        raise ShapeError(self.op, name, f"has shape {shape}, with {shape[axis]} at dimension {axis}", f"[{described}]")


@functools.lru_cache(maxsize=1024)  # some descriptions have sizes of the call in them
def _dimensions(dims: str) -> tuple[tuple[str, int | None], ...]:
    """Each dimension's name, and its size where the name is a number."""
    return tuple((dim, int(dim) if dim.isdigit() else None) for dim in dims.split())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return " or ".join(map(_name, dtypes))
