"""Watching loaded files: a change on disk is loaded whole, or refused whole and reported while the last good stays."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dsa_config.errors import SettingError, SourceError

if TYPE_CHECKING:
    from dsa_config.state import State

_log = logging.getLogger("dsa_config")

POLL_MS = 2000
"""How often the files are compared even when the system reports nothing, in milliseconds."""


class Watcher:
    """Reloads when a loaded file changes. A context manager; `stop()` ends it as well.

    Files are compared by what is in them, and found again by their names at every look: an editor's replaced file and
    the swapped symbolic link of a Kubernetes ConfigMap are changes like any other.

    Attributes:
        refusals: the errors of reloads that were refused, latest last; they are logged too.
    """

    def __init__(self, state: State) -> None:
        try:
            import watchfiles  # noqa: F401  before the thread starts, so that its absence is the caller's error
        except ImportError:
            raise SourceError("a watcher", ["needs watchfiles: pip install 'dsa[watch]'"]) from None
        self._state = state
        self._stopping = threading.Event()
        self._seen = self._digest()
        self.refusals: list[Exception] = []
        self._thread = threading.Thread(target=self._run, name="dsa-config-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, and wait until a reload that is under way is done."""
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def is_alive(self) -> bool:
        """Whether it still watches."""
        return self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        from watchfiles import watch

        while not self._stopping.is_set():
            folders = _folders(self._files())
            if not folders:  # nothing is loaded; that may change
                self._stopping.wait(POLL_MS / 1000)
                self._look()
                continue
            changes = watch(
                *folders,
                watch_filter=None,
                stop_event=self._stopping,
                rust_timeout=POLL_MS,
                yield_on_timeout=True,
                recursive=False,
                raise_interrupt=False,
            )
            for _ in changes:
                self._look()
                if _folders(self._files()) != folders:
                    break

    def _look(self) -> None:
        now = self._digest()
        if now == self._seen:
            return
        self._seen = now
        try:
            self._state.load(self._state.sources)
        except (SettingError, Warning) as error:  # a warning, where the program makes errors of them
            self.refusals.append(error)
            _log.error("reload refused, the last good values stay: %s", error)

    def _files(self) -> tuple[Path, ...]:
        loaded = self._state.loaded
        return loaded.files if loaded is not None else ()

    def _digest(self) -> str:
        found = hashlib.sha256()
        for path in self._files():
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                found.update(os.fsencode(file) + b"\0")
                try:
                    found.update(file.read_bytes())
                except OSError as error:  # gone, or a folder within a folder of secrets
                    found.update(type(error).__name__.encode())
        return found.hexdigest()


def _folders(files: Iterable[Path]) -> list[Path]:
    """The folders whose entries can change what a file name leads to."""
    found = set()
    for path in files:
        for place in (path.absolute(), path.resolve()):
            folder = place if place.is_dir() else place.parent
            found.add(folder)
    return sorted(folder for folder in found if folder.is_dir())
