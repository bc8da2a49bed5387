"""What a live object can do beside reading, setting and overriding: load, track, carry. Each group is a base of `Live`.

They lie apart because they are seldom needed: each imports what it needs when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dsa_config.origins import caller_site
from dsa_config.overrides import FlagScope, Scope, entered

if TYPE_CHECKING:
    from dsa_config.changes import Change, Listener
    from dsa_config.declared import Effect
    from dsa_config.read import Reader
    from dsa_config.state import State
    from dsa_config.tracking import Guard, Recording
    from dsa_config.watch import Watcher

F = TypeVar("F", bound=Callable[..., Any])


class LoadingMethods:
    """Sources beside the environment."""

    _state: State

    def load(self, **sources: Any) -> None:
        """Read files and stores beside the environment, all or none. What is not named here is left to the variables.

        Args:
            **sources: any of
                file: a config file: TOML, YAML, JSON, or a pyproject.toml.
                profile: the profile of the config file.
                dotenv: a dotenv file or several, of which the last is strongest.
                secrets_dir: a folder with a file for each secret.
                cloud: functions that make a source of pydantic-settings for a settings class; the last is strongest.
                flags: a feature-flag file, or another source of flags.
                emulate_version: treat deprecated names as that version does.
                fatal_deprecations, fatal_conflicts: the use of deprecated names, or names that differ, is an error.

        Raises:
            TypeError: an argument that is none of these.
            SourceError, BadValue, BadValues: a source cannot be used; everything stays as it was.
            DeprecatedNameRefused, ConflictRefused: names that are errors.
        """
        from dsa_config.loading import Sources

        self._state.load(Sources(**sources))

    def reload(self) -> None:
        """Read again what was loaded, and the control variables; all or none.

        Raises:
            SourceError, BadValue, BadValues: a source cannot be used; the last good values stay.
        """
        self._state.load(self._state.sources)

    def watch(self) -> Watcher:
        """Reload whenever a loaded file changes, until `stop()`; also a context manager.

        Raises:
            SourceError: the sources cannot be loaded in the first place, or watchfiles is not installed.
        """
        from dsa_config.watch import Watcher

        self._state.ensure_loaded()
        return Watcher(self._state)

    def loaded_files(self) -> tuple[Path, ...]:
        """Every file and folder that was loaded.

        Raises:
            SourceError: the sources cannot be loaded in the first place.
        """
        self._state.ensure_loaded()
        return self._state.loaded.files if self._state.loaded is not None else ()

    def flag_context(self, /, **values: Any) -> Scope:
        """A context for feature flags, for a scope: `with settings.flag_context(layer=3): ...`.

        It adds to the context around it.

        Raises:
            SettingError: a value that no flag rule can be asked about.
        """
        return FlagScope(self._state.flag_context().merged(_flag_context(values)))

    def set_flag_context(self, /, **values: Any) -> None:
        """The context for feature flags of the whole process, in place of what it was: model, rank, architecture.

        Raises:
            SettingError: a value that no flag rule can be asked about.
        """
        self._state.set_process_context(_flag_context(values))


class TrackingMethods:
    """What was read, and what has changed."""

    _state: State
    _reader: Callable[[str], Reader]

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Call a function with name, old, new and origin at every change for the whole process.

        A change of the environment is noticed by the next read of the setting. Overrides are no changes.

        Returns:
            A function that ends it.
        """
        return self._state.changes.listen(listener)

    def history(self, name: str | None = None) -> list[Change]:
        """The last changes for the whole process, oldest first: of one setting, or of all."""
        return self._state.changes.last(None if name is None else self._reader(name).setting.name)

    def passed(self, effect: Effect, what: str, *, made: Iterable[object] = (), decided_by: Iterable[str] = ()) -> None:
        """Say that a moment has passed: from now on, changes of settings that wait for it are reported as too late.

        Args:
            effect: capture or allocate.
            what: what happened, in words: "the KV cache was allocated".
            made: what was made: once nothing of it is there any more, no change is too late for it. It is not kept
                alive. If nothing is given, the moment lasts.
            decided_by: names of the settings that decided about it; all that wait for such a moment, if none is given.

        Raises:
            ValueError: no such moment.
            TypeError: Python has no weak references to something that was made.
            UnknownSetting: no such setting.
        """
        if effect not in ("capture", "allocate"):
            raise ValueError(f"passed({effect!r}): wanted capture or allocate")
        names = frozenset(self._reader(name).setting.name for name in decided_by) or None
        # The packages that read the settings say so for whoever called them, and so do those in between.
        cls = self._state.cls
        self._state.moments.passed(effect, what, caller_site(beyond=(*cls.read_by, *cls.called_by)), made, names)

    def record_reads(self) -> Recording:
        """Note what is read in this context: `with settings.record_reads() as recorded: ...`."""
        from dsa_config.tracking import Recording

        return Recording(self._state)

    def fingerprint(self, *names: str) -> str:
        """A hash of these settings' values, or of all, that is the same in every process. Secrets are left out.

        Raises:
            UnknownSetting: no such setting.
            TypeError: a value that has no form outside the process.
        """
        from dsa_config.tracking import fingerprint

        return fingerprint(self._state.cls, {it.setting.name: it.read() for it in self._named(names)})

    def guard(self, *names: str, what: str = "what was built from these settings") -> Guard:
        """The present values of these settings, or of all, to be compared later.

        Raises:
            UnknownSetting: no such setting.
        """
        from dsa_config.tracking import Guard

        return Guard(self._state, {it.setting.name: it.read() for it in self._named(names)}, what)

    def sealed(self) -> Any:
        """A plain object whose attributes the writers keep current: the cheapest read there is.

        Sees `os.environ`, `set`, `reset`, `load` and overrides; not what goes around `os.environ`.
        """
        from dsa_config.sealed import Sealed

        self._state.ensure_loaded()
        with self._state.lock:
            if self._state.sealed is None:
                self._state.sealed = Sealed(self._state)
        return self._state.sealed.object

    def _named(self, names: tuple[str, ...]) -> list[Reader]:
        return [self._reader(name) for name in names] if names else list(self._state.readers.values())


class CarryingMethods:
    """Values of this context in other threads and processes."""

    _state: State

    def carry(self, function: F) -> F:
        """A function that runs with this context's scopes in any thread or process."""
        from dsa_config.carry import Carried

        return Carried(function, entered.get(), (self._state,))  # type: ignore[return-value]

    def carrying(self, executor: Executor) -> Executor:
        """An executor that runs everything with the scopes of the context that submits it."""
        from dsa_config.carry import CarryingExecutor

        return CarryingExecutor(executor, (self._state,))

    def child_env(self, base: dict[str, str] | None = None) -> dict[str, str]:
        """An environment that gives a child process the values of this context: `subprocess.run(..., env=...)`.

        Args:
            base: the environment to start from; `os.environ` if not given.

        Raises:
            SettingError: a value that no environment variable can carry.
        """
        from dsa_config.carry import child_env

        return child_env(self._state, dict(os.environ) if base is None else base)


def _flag_context(values: dict[str, Any]) -> Any:
    from dsa_config.flags.context import FlagContext

    return FlagContext(**values)
