"""Where the results of several prompts go: a line each, as soon as it is there."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from dsa_exec.cli.report import PromptResult


class ResultLines:
    """Writes results as JSON lines. A line is written whole, and at once.

    Args:
        stream: where to.
        name: of its file, for an error; None: it has none.
    """

    def __init__(self, stream: TextIO, name: str | None = None) -> None:
        self._stream = stream
        self._name = name
        self.finished = 0
        self.new_tokens = 0

    def write(self, result: PromptResult) -> None:
        """Write one result.

        Raises:
            OSError: it cannot be written. Names the file.
        """
        line = json.dumps(result.model_dump(mode="json"), allow_nan=False) + "\n"
        self.finished += result.stopped != "interrupted"
        self.new_tokens += len(result.tokens)
        try:
            self._stream.write(line)
            self._stream.flush()
        except OSError as error:  # the system names the file only where it cannot be opened
            raise OSError(error.errno, error.strerror, self._name) from None


@contextlib.contextmanager
def result_lines(file: Path | None) -> Iterator[ResultLines]:
    """Results in a file, which is made anew, or on standard output.

    Raises:
        OSError: the file cannot be written.
    """
    if file is None:
        yield ResultLines(sys.stdout)
        return
    stream = file.open("w", encoding="utf-8")
    try:
        yield ResultLines(stream, str(file))
    finally:
        with contextlib.suppress(OSError):  # each line was flushed: what cannot be written now was told then
            stream.close()
