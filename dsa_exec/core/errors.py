"""Errors with fields: each says what is wrong, what came and what is wanted."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence


class DsaError(Exception):
    """Any error that this package raises for what its caller gave it."""


class ArgumentError(DsaError, ValueError):
    """An argument of an op is not what the op takes: `op`, `argument`, `came`, `wanted`."""

    def __init__(self, op: str, argument: str, came: str, wanted: str) -> None:
        self.op = op
        self.argument = argument
        self.came = came
        self.wanted = wanted
        super().__init__(f"{op}: {argument} {came}; wanted {wanted}")


class ShapeError(ArgumentError):
    """Wrong number of dimensions, or a dimension that does not fit the other arguments."""


class DtypeError(ArgumentError):
    """Wrong element type, or no tensor at all."""


class StrideError(ArgumentError):
    """Elements of the last dimension do not lie side by side."""


class DeviceError(ArgumentError):
    """The argument is on another device than the others."""


class RangeError(ArgumentError):
    """A number, or a number within a tensor, is outside what the op takes."""


class LayoutError(DsaError, ValueError):
    """Bytes that cannot be laid out as asked: `what`, `field`, `got`, `wanted`."""

    def __init__(self, what: str, field: str, got: object, wanted: str) -> None:
        self.what = what
        self.field = field
        self.got = got
        self.wanted = wanted
        super().__init__(f"{what}: {field} is {got}; wanted {wanted}")


class GeometryError(DsaError, ValueError):
    """A configuration of which no plan can be made: `key`, `value` (None if absent), `origin` (its file), `wanted`."""

    def __init__(self, key: str, value: object, origin: str, wanted: str) -> None:
        self.key = key
        self.value = value
        self.origin = origin
        self.wanted = wanted
        super().__init__(f"{origin}: {key} is {'absent' if value is None else reprlib.repr(value)}; wanted {wanted}")


class PlanError(DsaError, ValueError):
    """A plan of memory that cannot be made or followed: `what`, `got`, `wanted`, and what to `change`, if known."""

    def __init__(self, what: str, got: object, wanted: str, change: str = "") -> None:
        self.what = what
        self.got = got
        self.wanted = wanted
        self.change = change
        super().__init__(f"{what} is {got}; wanted {wanted}" + (f". {change}" if change else ""))


class OutOfMemory(DsaError, RuntimeError):
    """Memory ran out with the smallest chunk, or where no other may be tried.

    `op`, `device`, `rows` of the chunk, `needed_bytes` at most, `free_bytes` of the driver and `reusable_bytes` of
    torch's allocator afterwards, `retries` before, and what to `change`.
    """

    def __init__(
        self,
        op: str,
        device: str,
        *,
        rows: int,
        needed_bytes: int,
        free_bytes: int,
        reusable_bytes: int,
        retries: int,
        change: str,
    ) -> None:
        self.op = op
        self.device = device
        self.rows = rows
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.reusable_bytes = reusable_bytes
        self.retries = retries
        self.change = change
        tried = f" after {retries} retr{'y' if retries == 1 else 'ies'} with fewer" if retries else ""
        super().__init__(
            f"{op}: out of memory on {device} with {rows} row{'' if rows == 1 else 's'} at a time{tried}: "
            f"up to {needed_bytes} bytes were needed, {free_bytes} are free and {reusable_bytes} more are unused in "
            f"torch's allocator; {change}"
        )


class LaunchError(DsaError, ValueError):
    """A part of the setting `kernel_launch` that names nothing: `part`, `wanted`."""

    def __init__(self, part: str, wanted: str) -> None:
        self.part = part
        self.wanted = wanted
        super().__init__(f"kernel_launch: {part!r} names no launch parameter; wanted {wanted}")


class UnsupportedPath(DsaError, RuntimeError):
    """Ways of attending that settings name and that cannot be taken: `refusals` (setting, value, sentence)."""

    def __init__(self, refusals: Sequence[tuple[str, str, str]]) -> None:
        self.refusals = tuple(refusals)
        super().__init__("; ".join(f"{setting}={choice}: {sentence}" for setting, choice, sentence in refusals))


class UnsupportedCall(DsaError, RuntimeError):
    """No backend takes a call, or the named one does not: `op`, `choice`, `refusals` (backend and sentence)."""

    def __init__(self, op: str, choice: str, refusals: Sequence[tuple[str, str]]) -> None:
        self.op = op
        self.choice = choice
        self.refusals = tuple(refusals)
        reasons = "; ".join(f"{name}: {sentence}" for name, sentence in refusals)
        super().__init__(f"{op}: {reasons} (chosen by {op}_backend={choice})")
