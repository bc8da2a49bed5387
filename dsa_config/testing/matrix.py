"""The marker `settings_matrix`: which combinations of values it means, and what each is called."""

from __future__ import annotations

import enum
import inspect
import itertools
import types
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest

from dsa_config.errors import SettingError
from dsa_config.grammar import ChoicesOf
from dsa_config.live import Live
from dsa_config.origins import Origin

if TYPE_CHECKING:
    from unittest import TestCase

    from dsa_config.declared import Setting

MARKER = "settings_matrix"
EXAMPLE = f'@pytest.mark.{MARKER}("fuse_topk", kv_format=["fp8", "model"])'

Axis = tuple[Live, "Setting", list[Any]]


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a test one run for each combination of all its markers."""
    try:
        axes = _axes(metafunc.definition.iter_markers(MARKER))
    except SettingError as error:
        mistake = pytest.fail.Exception(f"{metafunc.definition.nodeid}: {error}", pytrace=False)
        raise mistake from None
    combinations = list(itertools.product(*(values for _, _, values in axes)))
    metafunc.parametrize(
        "_settings_matrix",
        [[(live, {it.name: value}) for (live, it, _), value in zip(axes, one, strict=True)] for one in combinations],
        ids=["-".join(_id(it, value) for (_, it, _), value in zip(axes, one, strict=True)) for one in combinations],
        indirect=True,
    )


def refuse_on_test_case(collector: pytest.Module | pytest.Class, case: type[TestCase]) -> None:
    """Refuse the marker on a TestCase, on one of its methods, and on a module that has one.

    Raises:
        pytest.Collector.CollectError: it is there.
    """
    methods = [inspect.getattr_static(case, name, None) for name in dir(case)]
    marks = [mark for it in [case, *methods] for mark in getattr(it, "pytestmark", ()) if isinstance(mark, pytest.Mark)]
    if any(mark.name == MARKER for mark in [*marks, *collector.iter_markers()]):
        raise collector.CollectError(
            f"{case.__name__}: {MARKER} cannot multiply the methods of a unittest.TestCase; use a plain class, or "
            f"`with self.subTest(), settings.override(...):`"
        )


def _axes(markers: Iterator[pytest.Mark]) -> list[Axis]:
    from dsa_config import settings

    axes: list[Axis] = []
    for marker in markers:
        live, bare = cast(Live, settings), list(marker.args)
        if bare and isinstance(bare[0], Live):
            live = bare.pop(0)
        if not bare and not marker.kwargs:
            raise SettingError(f"{MARKER} names no setting; write {EXAMPLE}")
        wanted = [(name, None) for name in bare] + list(marker.kwargs.items())
        for name, values in wanted:
            if not isinstance(name, str) or name not in live._readers:
                raise live._unknown(str(name))
            setting = live._readers[name].setting
            if any(it is setting for _, it, _ in axes):
                raise SettingError(f"{name} is more than once in {MARKER} markers of one test")
            axes.append((live, setting, _given(live, setting, values)))
    return axes


def _given(live: Live, setting: Setting, values: Any) -> list[Any]:
    """The values of one setting, each checked."""
    if values is None:
        values = _all_values(live, setting)
    if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not values:
        raise SettingError(f"{setting.name}={values!r} in {MARKER}: wanted a list of one value or more")
    parsed: list[Any] = []
    for value in values:
        (given,) = live._parsed({setting.name: value}, Origin(f"the marker {MARKER}")).values()
        if given.value in parsed:
            raise SettingError(f"{setting.name}={values!r} in {MARKER}: {value!r} says again what was there before")
        parsed.append(given.value)
    return list(values)


def _all_values(live: Live, setting: Setting) -> list[Any]:
    metadata = live._class.model_fields[setting.name].metadata
    chosen = next((it for it in metadata if isinstance(it, ChoicesOf)), None)
    values = list(chosen.names()) if chosen is not None else _values_of(setting.annotation)
    if values is None:
        raise SettingError(
            f"{setting.name} in {MARKER} takes {setting.allowed}, which cannot all be tried: "
            f"write {setting.name}=[...] with values"
        )
    return values


def _values_of(kind: Any) -> list[Any] | None:
    """All values of a type; None if they cannot be listed."""
    if kind is bool:
        return [True, False]
    if kind is types.NoneType:
        return [None]
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return list(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        members = [_values_of(member) for member in typing.get_args(kind)]
        listed = [values for values in members if values is not None]
        return [value for values in listed for value in values] if len(listed) == len(members) else None
    return None


def _id(setting: Setting, value: Any) -> str:
    if isinstance(value, bool):
        return f"{setting.name}={'on' if value else 'off'}"
    try:
        return f"{setting.name}={setting.text_of(setting.masked(value))}"
    except TypeError:
        return f"{setting.name}={value!r}"
