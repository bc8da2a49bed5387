"""The signature of a call: all that a backend may ask of it when it refuses, as one value that can be a key.

That is everything but the numbers in tensors: shapes, strides, dtypes, where gradients are on whether they are wanted,
addresses modulo 16, layouts, and plain values. The function that makes it is written for each class, as `dataclasses`
writes `__eq__`: a loop over fields would take three times as long, on every call of every op.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch

Signature = tuple[Hashable, ...]

_TENSOR = "{0}.__class__, {0}.shape, {0}.stride(), {0}.dtype, {0}.data_ptr() & 15"
_PLAIN = (int, float, str, bool, type(None))


def signature_of(call: Any) -> Signature:
    """The signature of a call.

    Layouts and other frozen values stand in it by identity: who keeps a signature keeps `values_in(call)` with it.

    Args:
        call: an op's Call: a dataclass of tensors, plain values, frozen values, and dataclasses of those. Fields with
            `compare=False` are left out.
    """
    return _writer(call.__class__, torch.is_grad_enabled())(call)


def values_in(call: Any) -> tuple[Any, ...]:
    """The values that stand in the signature of a call by identity."""
    return tuple(_values(call))


def _values(value: Any) -> Iterator[Any]:
    for field in dataclasses.fields(value):
        if not field.compare:
            continue
        part = getattr(value, field.name)
        if _holds_tensors(part.__class__):
            yield from _values(part)
        elif not isinstance(part, (torch.Tensor, *_PLAIN)):
            yield part


@functools.cache
def _writer(kind: type, with_gradients: bool) -> Callable[[Any], Signature]:
    lines = ["def signature(value):"]
    tensor = _TENSOR + (", {0}.requires_grad" if with_gradients else "")
    parts = [repr(with_gradients), *_parts(kind, "value", tensor, lines)]
    lines.append(f"    return ({', '.join(parts)},)")
    namespace: dict[str, Any] = {"other": functools.partial(_other, with_gradients)}
    exec("\n".join(lines), namespace)  # noqa: S102 - of the names of a dataclass's fields
    written: Callable[[Any], Signature] = namespace["signature"]
    return written


def _parts(kind: type, value: str, tensor: str, lines: list[str]) -> Iterator[str]:
    """Expressions for the parts of a value's signature; lines that they need are added."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if not field.compare:
            continue
        name = f"{value}_{field.name}"
        lines.append(f"    {name} = {value}.{field.name}")
        hint = hints[field.name]
        options = set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}
        if hint is torch.Tensor:
            yield tensor.format(name)
        elif options == {torch.Tensor, types.NoneType}:
            yield f"None if {name} is None else ({tensor.format(name)})"
        elif options <= set(_PLAIN):
            yield name
        elif len(options) == 1 and _holds_tensors(hint):
            yield from _parts(hint, name, tensor, lines)
        elif len(options) == 1 and isinstance(hint, type):
            yield f"id({name})"
        else:
            yield f"other({name})"


def _other(with_gradients: bool, value: Any) -> Hashable:
    """What stands for a value whose class is not told by the field that holds it."""
    kind = value.__class__
    if kind in _PLAIN:
        return typing.cast("Hashable", value)
    return (kind, _writer(kind, with_gradients)(value)) if _holds_tensors(kind) else id(value)


@functools.cache
def _holds_tensors(kind: type) -> bool:
    """Whether it is a dataclass with tensors, or with dataclasses that have some."""
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return False
    hints = typing.get_type_hints(kind)
    parts = [part for hint in hints.values() for part in (hint, *typing.get_args(hint))]
    return any(part is torch.Tensor or _holds_tensors(part) for part in parts)
