"""What the settings of one class have in common: loaded sources, policy, changes, and the moments that have passed."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from dsa_config.changes import Changes
from dsa_config.controls import controls_of
from dsa_config.declared import settings_of
from dsa_config.lifecycle import warn_of_removed
from dsa_config.moments import Moments
from dsa_config.overrides import MISSING, entered
from dsa_config.policy import policy_of
from dsa_config.read import Reader

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings
    from dsa_config.flags.context import FlagContext
    from dsa_config.loading import Loaded, Sources
    from dsa_config.names import Word
    from dsa_config.origins import Origin
    from dsa_config.sealed import Sealed


class FlagSource(Protocol):
    """What evaluates feature flags: a flag file, or an OpenFeature client."""

    @property
    def names(self) -> Collection[str]:
        """The settings that it has flags for."""

    @property
    def timed(self) -> Collection[str]:
        """Those of them whose word can change by itself: by the time of day, or because a server says so."""

    def evaluate(self, name: str, context: FlagContext) -> Any:
        """What a flag says in a context, with `given`, `value` and `origin`; None if it says nothing."""


class State:
    """The common part of all readers of one settings class.

    Attributes:
        cls: the settings class.
        readers: one reader for each setting.
        policy: how deprecated names are treated.
        sources: what the caller of `load` named, if it was called; the control variables name the rest.
        changes: the history of values, and who wants to hear of them.
        moments: which moments after which a change has no effect have passed.
        recordings: how many recordings of reads are under way, in any context.
    """

    def __init__(self, cls: type[LiveSettings]) -> None:
        self.cls = cls
        self.readers = {name: Reader(setting, self) for name, setting in settings_of(cls).items()}
        self.policy = policy_of(cls)
        self.sources: Sources | None = None
        self.changes = Changes()
        self.moments = Moments()
        self.recordings = 0
        self.loaded: Loaded | None = None
        self.sealed: Sealed | None = None
        self._process_context: FlagContext | None = None
        self._loading = False
        self.renew_locks()
        _all_states.add(self)

    def renew_locks(self) -> None:
        """Also in a forked child, where a lock may have been held by a thread that is gone."""
        self.lock = threading.RLock()
        self._loading = False

    def process_context(self) -> FlagContext:
        """The feature-flag context of the whole process."""
        if self._process_context is None:
            from dsa_config.flags.context import FlagContext

            self._process_context = FlagContext()
        return self._process_context

    def flag_context(self) -> FlagContext:
        """The feature-flag context of the innermost scope that has one, or the process's."""
        for scope in reversed(entered.get()):
            if scope.context is not None:
                return scope.context
        return self.process_context()

    def set_process_context(self, context: FlagContext) -> None:
        """Evaluate flags in another context from now on."""
        with self.lock:
            self._process_context = context
            for reader in self.readers.values():
                reader.forget()
        self.note_changes(self.readers.values())

    def ensure_loaded(self) -> None:
        """Load what the control variables name, before the first value is read.

        Raises:
            SourceError: a source cannot be used. Nothing is loaded then, and the next read tries again.
        """
        if self.loaded is None:
            with self.lock:
                # A parser or a store may read settings itself while they are being loaded.
                if self.loaded is None and not self._loading:
                    self.load(self.sources)

    def load(self, sources: Sources | None) -> None:
        """Read all sources, and take them all or none.

        Args:
            sources: what the caller names; None: what the control variables name.

        Raises:
            SourceError, BadValue, BadValues: a source cannot be used; everything stays as it was.
        """
        from dsa_config.loading import Sources, read_sources

        with self.lock:
            self._loading = True
            try:
                controls = controls_of(self.cls)
                settled = (sources or Sources()).settled(controls)
                policy = policy_of(
                    self.cls,
                    settled.emulate_version,
                    fatal_deprecations=settled.fatal_deprecations,
                    fatal_conflicts=settled.fatal_conflicts,
                )
                loaded = read_sources(self.cls, settled, policy)
            finally:
                self._loading = False
            first = self.loaded is None
            if not first:
                self.remember_values(self.readers.values())
            self.sources, self.policy, self.loaded = sources, policy, loaded
            for name, reader in self.readers.items():
                reader.load(loaded.layers.get(name, ()), loaded.flags if name in loaded.flagged else None)
        if not first:
            self.note_changes(self.readers.values())
        warn_of_removed([it for it in self.cls.removed_names if it.name in os.environ or it.name in loaded.mentioned])

    def loaded_words(self, name: str) -> list[list[Word]]:
        """What loaded sources say about a setting, in groups of names that are weighed together."""
        return self.loaded.words.get(name, []) if self.loaded is not None else []

    def remember_values(self, readers: Iterable[Reader]) -> None:
        """Make sure that the present values are known, before they are changed."""
        for reader in readers:
            layer = reader.strongest()
            if layer is not None:
                reader.observe(layer.value)

    def note_changes(self, readers: Iterable[Reader]) -> None:
        """Look at values that may have changed, tell of those that have, and bring the sealed object up to date."""
        self.refresh_sealed()  # first, because a listener or a warning that is an error may end this
        for reader in readers:
            layer = reader.strongest()
            if layer is not None:
                self.observed(reader, layer.value, layer.origin)

    def observed(self, reader: Reader, value: Any, origin: Origin) -> None:
        """Take note of a value that was read for the whole process."""
        before = reader.observe(value)
        if before is not MISSING:
            setting = reader.setting
            self.changes.add(setting.name, setting.masked(before), setting.masked(value), origin)
            self.moments.check(setting, setting.masked(before), setting.masked(value), origin)

    def record(self, more: int) -> None:
        """Count recordings that begin and end. While there is one, every read asks for scopes."""
        with self.lock:
            self.recordings += more
            for reader in self.readers.values():
                reader.weigh_scopes()
        self.refresh_sealed()

    def mark_overridden(self, reader: Reader) -> None:
        """From its first override on, every read of a setting asks for scopes."""
        with self.lock:
            reader.overridden = True
            reader.weigh_scopes()
        self.refresh_sealed()

    def refresh_sealed(self) -> None:
        """Bring the sealed object up to date, if there is one."""
        if self.sealed is not None:
            self.sealed.refresh()


_all_states: weakref.WeakSet[State] = weakref.WeakSet()


def _renew_locks() -> None:
    for state in _all_states:
        state.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
