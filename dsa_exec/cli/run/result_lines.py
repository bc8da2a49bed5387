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
        stream: where to; None: nowhere, since standard output is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.count = 0
        self.new_tokens = 0

    def write(self, result: PromptResult) -> None:
        """Write one result."""
        line = json.dumps(result.model_dump(mode="json"), allow_nan=False) + "\n"
        self.count += 1
        self.new_tokens += len(result.tokens)
        if self._stream is not None:
            self._stream.write(line)
            self._stream.flush()


@contextlib.contextmanager
def result_lines(file: Path | None) -> Iterator[ResultLines]:
    """Results in a file, which is made anew, or on standard output.

    Raises:
        OSError: the file cannot be written.
    """
    if file is None:
        yield ResultLines(sys.stdout)
        return
    with file.open("w", encoding="utf-8") as stream:
        yield ResultLines(stream)
