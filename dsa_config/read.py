"""Reading a setting: its value as of now, in this context, by the order of the layers.

The usual read is a getter's (`getters.py`), which compares what was kept (`record.py`) with the environment. What it
cannot answer is looked up here, and kept.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dsa_config import layers, lifecycle
from dsa_config.errors import SettingError
from dsa_config.layers import Given, Layer
from dsa_config.names import Word
from dsa_config.origins import Origin
from dsa_config.overrides import MISSING, Scope, active, entered
from dsa_config.record import Recorded
from dsa_config.sources import env

if TYPE_CHECKING:
    from dsa_config.declared import Setting
    from dsa_config.flags.context import FlagContext
    from dsa_config.state import FlagSource, State

KEPT: frozenset[type] = frozenset((bool, int, str, type(None)))
"""The types whose values are parsed once and kept; no floats, because -0.0 == 0.0."""

_MOST_KEPT = 64


class Reader(Recorded):
    """Everything that reading one setting takes.

    Attributes:
        setting: the declaration.
        state: what the settings of the class have in common.
        process: what `settings.set()` gave, or None.
        loaded: the layers of loaded sources, strongest first.
        flags: what evaluates the setting's feature flag, or None.
        timed: the flag's word can change by itself.
        overridden: an override of the setting has been made in this process.
        kept: what overrides gave, and this reader with what that was parsed to, by type.
    """

    __slots__ = (
        "_known",
        "_last",
        "_unflagged",
        "flags",
        "kept",
        "loaded",
        "overridden",
        "process",
        "setting",
        "state",
        "timed",
    )

    def __init__(self, setting: Setting, state: State) -> None:
        self.setting = setting
        self.state = state
        self.process: Given | None = None
        self.loaded: tuple[Layer, ...] = ()
        self.flags: FlagSource | None = None
        self.timed = False
        self.overridden = False
        self.kept: dict[type, dict[Any, tuple[Reader, Any]]] = {kind: {} for kind in KEPT}
        self._last: tuple[list[Any], Any] = ([], None)
        self._known: Any = MISSING
        self._unflagged: tuple[int, list[Any], Layer] | None = None
        super().__init__([env.key_of(variable) for variable in setting.variables])

    def read(self) -> Any:
        """The value as of now, in this context.

        Raises:
            BadValue: the winning layer's text is not a value of this setting.
            SourceError: the files that the environment names cannot be used.
            DeprecatedNameRefused, ConflictRefused: the setting is given under names that are errors.
        """
        if self.scoped and (scopes := entered.get()):
            return self.read_in(scopes)
        return self._read_process()

    def read_in(self, scopes: tuple[Scope, ...]) -> Any:
        """The value in these scopes, innermost last."""
        value = scopes[-1].values.get(self, MISSING)
        if value is not MISSING and not self.state.recordings:
            return value
        context = None
        for scope in reversed(scopes):
            if (value := scope.values.get(self, MISSING)) is not MISSING:
                break
            context = scope.context if context is None else context
        if value is MISSING:
            value = self._read_process() if context is None or self.flags is None else self._read_flagged(context)
        if self.state.recordings:
            for scope in scopes:
                if scope.recording is not None:
                    scope.recording.note(self, value)
        return value

    def strongest(self) -> Layer | None:
        """The winning layer for the whole process, read, without a warning; None where it cannot be read."""
        try:
            self.state.ensure_loaded()
            layer = self._winner(env.words_in(self.setting))
            return dataclasses.replace(layer, value=self._parsed(layer))
        except SettingError:
            return None

    def layers(self) -> list[Layer]:
        """Every layer's word on this setting in this context, strongest first.

        Raises:
            DeprecatedNameRefused, ConflictRefused: the setting is given under names that are errors.
            BadValue: the setting's feature flag cannot be evaluated in this context.
        """
        self.state.ensure_loaded()
        return list(
            layers.strongest_first(
                self.setting,
                overridden=active(self),
                process=self.process,
                words=self._in_force(env.words_in(self.setting)),
                loaded=self.loaded,
                flagged=self._flagged(self.state.flag_context),
            )
        )

    def keep(self, given: Given) -> None:
        """Remember what an override's value was parsed to, so that the same need not be parsed again."""
        kept = self.kept.get(given.given.__class__)  # by class, because True == 1
        if self.setting.is_plain and kept is not None and len(kept) < _MOST_KEPT:
            kept[given.given] = (self, given.value)

    def set(self, given: Given | None) -> None:
        """Give the process a value, or with None take it back."""
        with self.lock:
            self.process = given
            self.empty()

    def load(self, loaded: tuple[Layer, ...], flags: FlagSource | None) -> None:
        """Take the layers of newly loaded sources."""
        with self.lock:
            self.loaded = loaded
            self.flags = flags
            self.timed = flags is not None and self.setting.name in flags.timed
            self.empty()
        self.weigh_scopes()

    def weigh_scopes(self) -> None:
        """Work out whether reads must ask for scopes, and see to it that they do."""
        recorded = self.state.recordings > 0
        self.set_scoped("all" if recorded else "some" if self.overridden or self.flags is not None else "")

    def observe(self, value: Any) -> Any:
        """Take note of a value for the whole process; what it replaced, or `MISSING` if that is the same or unknown."""
        with self.lock:
            before, self._known = self._known, value
        return MISSING if before is MISSING or before is value or before == value else before

    def _read_process(self) -> Any:
        try:
            return self._look()
        except AttributeError as error:
            # Of a validator or a broken os.environ: from a property it would look as if there were no such setting.
            raise RuntimeError(f"{self.setting.name} cannot be read: {error}") from error

    def _look(self) -> Any:
        unreplaced = os.environ is env.ENVIRON
        raws = [env.probe(key) for key in self.keys]
        record = self.record
        if unreplaced and all(map(_is, raws, record[len(raws) :])):
            return record[-1]
        self.state.ensure_loaded()
        generation = self.generation
        words = env.words_in(self.setting, self._texts(raws) if unreplaced else None)
        layer = self._winner(words)
        value = self._parsed(layer)
        if words and self.process is None:
            lifecycle.warn_once(words, self.state.policy)
        if unreplaced and not (self.timed and layer.source in ("flag", "default")):
            self.publish(generation, raws, value)
        self.state.observed(self, value, layer.origin)
        return value

    def _read_flagged(self, context: FlagContext) -> Any:
        """The value in a scope's feature-flag context: the layers above the flag do not depend on it and are kept."""
        raws = [env.probe(key) for key in self.keys]
        kept = self._unflagged
        if kept is not None and os.environ is env.ENVIRON and kept[:2] == (self.generation, raws):
            layer = kept[2]
        else:
            self.state.ensure_loaded()
            generation = self.generation
            layer = next(self._layers(self._in_force(env.words_in(self.setting)), flagged=None))
            if os.environ is env.ENVIRON:
                self._unflagged = (generation, raws, layer)
        if layer.source != "default":
            return self._parsed(layer)
        flagged = self.flags.evaluate(self.setting.name, context) if self.flags is not None else None
        return layer.value if flagged is None else flagged.value

    def _winner(self, words: Sequence[Word]) -> Layer:
        flagged = self._flagged(self.state.process_context)
        return next(self._layers(self._in_force(words), flagged))

    def _layers(self, words: Sequence[Word], flagged: Callable[[], Given | None] | None) -> Iterator[Layer]:
        return layers.strongest_first(
            self.setting, overridden=None, process=self.process, words=words, loaded=self.loaded, flagged=flagged
        )

    def _in_force(self, words: Sequence[Word]) -> Sequence[Word]:
        if not words:
            return words
        lifecycle.require_allowed(words, self.state.policy)
        return lifecycle.in_force(words, self.state.policy)

    def _flagged(self, context: Callable[[], FlagContext]) -> Callable[[], Given | None] | None:
        flags = self.flags
        if flags is None:
            return None

        def evaluate() -> Given | None:
            flagged = flags.evaluate(self.setting.name, context())
            return None if flagged is None else Given(flagged.given, flagged.value, Origin(flagged.origin))

        return evaluate

    def _texts(self, raws: Sequence[Any]) -> dict[str, str]:
        # Out of the raw values of the record to be published: os.environ may already say something else.
        named = zip(self.setting.variables, raws, strict=True)
        return {name: env.text_of(raw) for name, raw in named if raw is not None}

    def _parsed(self, layer: Layer) -> Any:
        """The layer's value; text that was parsed last time is not parsed again."""
        if layer.word is None or layer.is_read:
            return layer.value
        found = [layer.word.entry, dict(layer.word.found)]
        seen, value = self._last
        if seen != found:
            value = layer.read()
            self._last = (found, value)
        return value


def _is(left: object, right: object) -> bool:
    return left is right
