"""The prompts of a file: batch after batch, a line of JSON for each result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsa_exec.cli.progress import late_progress
from dsa_exec.cli.report import AgreementWithPlain, PromptResult
from dsa_exec.cli.run.asked import Asked
from dsa_exec.cli.run.comparison import compared
from dsa_exec.cli.run.ours import Ours
from dsa_exec.cli.run.prompts import Prompt
from dsa_exec.cli.run.result_lines import ResultLines
from dsa_exec.cli.run.stages import Stages
from dsa_exec.integrations.transformers.continuation import Continuation
from dsa_exec.integrations.transformers.errors import NotFinite


class ManyPrompts:
    """Several prompts, in the order of their file. When an interrupt comes, what there is of those begun is written.

    Args:
        loaded: the model and its tokenizer.
        prompts: to continue.
        ids: the tokens of each.
        asked: the options.
        stages: where to count the time.
        lines: where results go.
    """

    def __init__(
        self,
        loaded: Any,
        prompts: Sequence[Prompt],
        ids: Sequence[Sequence[int]],
        asked: Asked,
        stages: Stages,
        lines: ResultLines,
    ) -> None:
        self._loaded = loaded
        self._prompts = prompts
        self._ids = ids
        self._asked = asked
        self._sampling = asked.sampling()
        self._stages = stages
        self._lines = lines
        self.compared = 0
        self.alike = 0

    def run(self) -> None:
        """Continue them all."""
        size = self._asked.batch_size or 1
        with late_progress("prompts", len(self._prompts)) as advance:
            for first in range(0, len(self._prompts), size):
                self._batch(range(first, min(first + size, len(self._prompts))), advance)

    def _batch(self, numbers: range, advance: Callable[[], None]) -> None:
        ours = Ours(
            self._loaded.model,
            [self._ids[number] for number in numbers],
            [self._prompts[number].max_new_tokens for number in numbers],
            sampling=self._sampling,
            first_request=numbers.start,
            record=self._asked.compares,
        )
        left = list(numbers)
        try:
            ours.run(self._stages, lambda _: None)
            while left:
                made = ours.generation[left[0] - numbers.start]
                agreed = self._compared(left[0], made) if self._asked.compares else None
                self._write(left.pop(0), made, agreed)
                advance()
        except (KeyboardInterrupt, NotFinite) as error:
            for number in left:
                made = ours.generation[number - numbers.start]
                if ours.generation.is_done(number - numbers.start):
                    self._write(number, made, None)
                elif made.tokens and isinstance(error, KeyboardInterrupt):
                    self._write(number, made, None, is_whole=False)
            raise

    def _compared(self, number: int, made: Continuation) -> AgreementWithPlain:
        found = compared(
            self._loaded.model,
            self._ids[number],
            made,
            max_new_tokens=self._prompts[number].max_new_tokens,
            sampling=self._sampling,
            request=number,
            stages=self._stages,
            on_token=lambda: None,
        )
        self.compared += 1
        self.alike += found.same_tokens
        return found

    def _write(
        self, number: int, made: Continuation, agreed: AgreementWithPlain | None, *, is_whole: bool = True
    ) -> None:
        self._lines.write(
            PromptResult(
                id=self._prompts[number].name,
                prompt_tokens=len(self._ids[number]),
                tokens=made.tokens,
                text=self._loaded.tokenizer.decode(made.tokens, skip_special_tokens=True),
                stopped="interrupted" if not is_whole else "end" if made.ended else "length",
                agreement=agreed,
            )
        )
