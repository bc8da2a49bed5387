"""A progress bar for what takes longer than a second, on standard error, and only where that is a terminal."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PATIENCE_S = 1.0


@contextlib.contextmanager
def late_progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar once the block has taken a second. Gives the function that counts one more done.

    Args:
        what: is being done.
        total: how many there are to do.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Without redirection: it would take what is printed to standard output along to the terminal.
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = bar.add_task(what, total=total)
    timer = threading.Timer(PATIENCE_S, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda: bar.advance(task)
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
