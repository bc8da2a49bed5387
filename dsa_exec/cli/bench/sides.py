"""The snapshots of settings that are compared, and the one that is a reference for formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from dsa_config import DSASettings, settings
from dsa_config.declared import settings_of
from dsa_config.errors import UnknownSetting
from dsa_config.tools.assignments import read_assignments
from dsa_config.tools.explanations import explain_all
from dsa_exec.cli.bench.asked import BenchError
from dsa_exec.cli.bench.report import Snapshot
from dsa_exec.cli.report import SettingInForce

FORMATS = ("index_k_format", "kv_format")
UNQUANTISED = "model"


@dataclass(frozen=True, slots=True)
class Side:
    """One snapshot: the settings as they are, with some changed.

    Attributes:
        name: a or b.
        texts: the changes as they were given.
        given: the changes.
        warnings: what there is to say of their names.
    """

    name: Literal["a", "b"]
    texts: tuple[str, ...]
    given: Mapping[str, Any]
    warnings: tuple[str, ...]

    def in_force(self) -> AbstractContextManager[None]:
        """The settings of this side, until the block ends."""
        return settings.override(**self.given)

    def formats(self) -> tuple[str, ...]:
        """What its caches hold."""
        with self.in_force():
            return tuple(getattr(settings, name) for name in FORMATS)

    def fingerprint(self) -> str:
        """A text that is the same for the same values of all settings."""
        with self.in_force():
            return settings.fingerprint()

    def snapshot(self) -> Snapshot:
        """Its settings for the report."""
        with self.in_force():
            changed = explain_all(changed_only=True)
        return Snapshot(
            name=self.name,
            given=list(self.texts),
            settings=[
                SettingInForce(
                    name=it.name,
                    value=it.value,
                    source=it.source,
                    origin=f"--{self.name}" if it.name in self.given else it.origin,
                )
                for it in changed
            ],
        )


def sides_of(a: Sequence[str], b: Sequence[str] | None) -> list[Side]:
    """The sides of the options `--a` and `--b`. Without --b there is one; without --a, a is the settings as they are.

    Raises:
        SettingError: a text that is no assignment, or that its setting does not take.
        BenchError: a name that no setting has, or a setting of which a process can have one value only.
    """
    sides = [_side("a", a)]
    if b:
        sides.append(_side("b", b))
    return sides


def _side(name: Literal["a", "b"], texts: Sequence[str]) -> Side:
    try:
        found = read_assignments(texts, f"--{name}")
    except UnknownSetting as error:
        raise BenchError(f"--{name}: {error}") from None
    for field in found.given:
        if settings_of(DSASettings)[field].effect == "process":
            raise BenchError(f"--{name} {field}: takes effect in the next process, and both sides are measured in one")
    return Side(name, tuple(texts), found.given, tuple(found.warnings))


def torch_reference(formats: Sequence[str]) -> AbstractContextManager[None]:
    """Every setting at its default, every op on torch, caches in these formats."""
    values = {name: it.given_default for name, it in settings_of(DSASettings).items()}
    values |= {name: "torch" for name in values if name.endswith("_backend")}
    return settings.override(**{**values, **dict(zip(FORMATS, formats, strict=True))})
