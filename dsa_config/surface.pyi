"""What `live(Class)` adds to a settings class, for editors and type checkers: the live object is typed as the class.

There is no such module at run time: instances of the class are plain frozen snapshots. `dsa_config.live.Live` has the
full descriptions, and a test compares the two.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Self, TypeVar

from dsa_config.changes import Change, Listener
from dsa_config.declared import Effect
from dsa_config.explain import Explanation
from dsa_config.overrides import Override, Scope
from dsa_config.sources.texts import CloudStore
from dsa_config.state import FlagSource
from dsa_config.tracking import Guard, Recording
from dsa_config.watch import Watcher

F = TypeVar("F", bound=Callable[..., Any])

class Surface:
    def override(self, /, **values: object) -> Override:
        """Values for a scope: this thread or asyncio task, and the tasks that it starts."""

    def set(self, /, **values: object) -> None:
        """Values for the whole process, until `reset`."""

    def reset(self, /, *names: str) -> None:
        """Take back what `set` gave: for these settings, or for all if none is named."""

    def explain(self, name: str) -> Explanation:
        """Why a setting (or the setting of an environment name) has its value."""

    def snapshot(self) -> Self:
        """All values as of now, frozen."""

    def load(
        self,
        *,
        file: Path | str | None = ...,
        profile: str | None = ...,
        dotenv: Sequence[Path | str] | Path | str | None = ...,
        secrets_dir: Path | str | None = ...,
        cloud: Sequence[CloudStore] = ...,
        flags: Path | str | FlagSource | None = ...,
        emulate_version: str | None = ...,
        fatal_deprecations: bool = ...,
        fatal_conflicts: bool = ...,
    ) -> None:
        """Read files and stores beside the environment, all or none."""

    def reload(self) -> None:
        """Read again what was loaded, all or none."""

    def watch(self) -> Watcher:
        """Reload whenever a loaded file changes, until `stop()`."""

    def loaded_files(self) -> tuple[Path, ...]:
        """Every file and folder that was loaded."""

    def flag_context(self, /, **values: object) -> Scope:
        """A context for feature flags, for a scope."""

    def set_flag_context(self, /, **values: object) -> None:
        """The context for feature flags of the whole process."""

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Call a function with name, old, new and origin at every change for the whole process."""

    def history(self, name: str | None = None) -> list[Change]:
        """The last changes for the whole process, oldest first."""

    def passed(
        self, effect: Effect, what: str, *, made: Iterable[object] = ..., decided_by: Iterable[str] = ...
    ) -> None:
        """Say that a moment has passed after which settings of this effect have none any more."""

    def record_reads(self) -> Recording:
        """Note what is read in this context."""

    def fingerprint(self, *names: str) -> str:
        """A hash of these settings' values, or of all, that is the same in every process."""

    def guard(self, *names: str, what: str = ...) -> Guard:
        """The present values of these settings, or of all, to be compared later."""

    def sealed(self) -> Self:
        """A plain object whose attributes are kept current by the writers: the cheapest read there is."""

    def carry(self, function: F) -> F:
        """A function that runs with this context's scopes in any thread or process."""

    def carrying(self, executor: Executor) -> Executor:
        """An executor that runs everything with the scopes of the context that submits it."""

    def child_env(self, base: dict[str, str] | None = None) -> dict[str, str]:
        """An environment that gives a child process the values of this context."""
