"""One prompt: its text on standard output as it comes, then the comparison."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

from dsa_exec.cli.progress import late_progress
from dsa_exec.cli.report import AgreementWithPlain
from dsa_exec.cli.run.asked import Asked
from dsa_exec.cli.run.comparison import compared
from dsa_exec.cli.run.ours import Ours
from dsa_exec.cli.run.prompts import Prompt
from dsa_exec.cli.run.stages import Stages
from dsa_exec.cli.run.text_stream import TextStream
from dsa_exec.cli.show_report import printable


class OnePrompt:
    """One prompt. After an interrupt, what there is until then can be asked for.

    Args:
        loaded: the model and its tokenizer.
        prompt: to continue.
        ids: its tokens.
        asked: the options.
        stages: where to count the time.
    """

    def __init__(self, loaded: Any, prompt: Prompt, ids: Sequence[int], asked: Asked, stages: Stages) -> None:
        self._loaded = loaded
        self._ids = ids
        self._wanted = prompt.max_new_tokens
        self._asked = asked
        self._sampling = asked.sampling()
        self._stages = stages
        self._ours: Ours | None = None
        self.agreement: AgreementWithPlain | None = None

    @property
    def tokens(self) -> list[int]:
        """The new tokens so far."""
        return [] if self._ours is None else list(self._ours.generation.tokens[0])

    @property
    def is_done(self) -> bool:
        """Whether it has all its tokens."""
        return self._ours is not None and self._ours.generation.is_done(0)

    def text_of(self, tokens: Sequence[int]) -> str:
        """Tokens as text."""
        text: str = self._loaded.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def run(self) -> None:
        """Continue the prompt; then run it on plain transformers, if that is wanted."""
        model, compares = self._loaded.model, self._asked.compares
        self._ours = Ours(model, [self._ids], [self._wanted], sampling=self._sampling, record=compares)
        if self._asked.as_json:
            with late_progress("on our ops", self._wanted) as advance:
                self._ours.run(self._stages, lambda _: advance())
        else:
            self._stream(self._ours)
        if compares:
            ours = self._ours.generation[0]
            with late_progress("plain transformers", self._wanted) as advance:
                self.agreement = compared(
                    model,
                    self._ids,
                    ours,
                    max_new_tokens=self._wanted,
                    sampling=self._sampling,
                    request=0,
                    stages=self._stages,
                    on_token=advance,
                )

    def _stream(self, ours: Ours) -> None:
        shown = _Shown("the text goes on:\n" if self._asked.report else "")
        stream = TextStream(self.text_of, lambda text: shown.write(printable(text)))
        shares_terminal = sys.stdout is not None and sys.stdout.isatty()
        try:
            with contextlib.ExitStack() as bar:
                advance = bar.enter_context(late_progress("on our ops", self._wanted))

                def on_token(_: int) -> None:
                    if shares_terminal:
                        bar.close()  # from here on, the text is what shows the progress
                    else:
                        advance()
                    stream.more(ours.generation.tokens[0])

                ours.run(self._stages, on_token)
            shown.write("")
        finally:
            stream.finish(self.tokens)
            shown.end()


class _Shown:
    """Text on standard output, with a title above it. Where an error comes before any text, nothing is printed.

    Args:
        title: printed first.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._has_begun = False

    def write(self, text: str) -> None:
        """Print a piece, at once."""
        title = "" if self._has_begun else self._title
        self._has_begun = True
        print(f"{title}{text}", end="", flush=True)

    def end(self) -> None:
        """End the last line, if there is one."""
        if self._has_begun:
            print(flush=True)
