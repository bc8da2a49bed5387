"""All work of a benchmark: checked, then timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dsa_exec.cli.bench.asked import Piece
from dsa_exec.cli.bench.checking import References
from dsa_exec.cli.bench.passes import Text, read, text_of
from dsa_exec.cli.bench.report import Measured, Work
from dsa_exec.cli.bench.sides import Side
from dsa_exec.cli.bench.timing import WARM_UPS, Runner, figure_of, ratio_of, time_in_turn
from dsa_exec.cli.progress import late_progress
from dsa_exec.core.errors import DsaError
from dsa_exec.dispatch.trace import Trace, record_calls
from dsa_exec.integrations.transformers import DsaCache, attached

CHECKED_AFTER_PREFILL = 1
"""Tokens that are read after a prompt whose prefill is timed: so much of the cache is checked, too."""


class Bench:
    """Measures pieces of work.

    Args:
        loaded: the model and its tokenizer.
        sides: one or two.
        passage: what is read.
        batch: requests.
        decode_tokens: timed steps of a repetition of decode.
        repetitions: timed ones.
    """

    def __init__(
        self, loaded: Any, sides: Sequence[Side], *, passage: str, batch: int, decode_tokens: int, repetitions: int
    ) -> None:
        self._loaded = loaded
        self._sides = sides
        self._passage = passage
        self._batch = batch
        self._decode_tokens = decode_tokens
        self._repetitions = repetitions
        self.done: list[Work] = []

    def run(self, pieces: Sequence[Piece]) -> None:
        """Measure them all. After an interrupt, `done` has those that were whole."""
        for piece in pieces:
            self.done.append(self._measured(piece))
            if self._loaded.model.device.type == "cuda":
                torch.cuda.empty_cache()

    def _measured(self, piece: Piece) -> Work:
        steps = self._decode_tokens if piece.phase == "decode" else CHECKED_AFTER_PREFILL
        text = text_of(self._loaded, self._passage, self._batch, piece.tokens, steps)
        what = f"{piece.phase} {piece.tokens}"
        references = References(self._loaded.model, text)
        checked, runners = [], []
        with late_progress(f"{what}: check", len(self._sides)) as advance:
            for side in self._sides:
                measured, runner = self._checked(piece, side, text, references)
                checked.append(measured)
                runners.append(runner)
                advance()
        if any(runner is None for runner in runners):
            return Work(phase=piece.phase, tokens=piece.tokens, sides=checked, ratio=None)
        ready = [runner for runner in runners if runner is not None]
        with (
            late_progress(what, WARM_UPS + self._repetitions) as advance,
            attached(self._loaded.model),
        ):
            seconds = time_in_turn(ready, self._repetitions, advance)
        tokens = self._batch * (piece.tokens if piece.phase == "prefill" else 1)
        sides = []
        for measured, runner, samples in zip(checked, ready, seconds, strict=True):
            figure = figure_of(samples)
            found = {
                "figure": figure,
                "tokens_per_s": 1e3 * tokens / figure.median_ms,
                "peak_bytes": runner.peak_bytes,
            }
            sides.append(measured.model_copy(update=found))
        ratio = ratio_of(*seconds) if len(seconds) > 1 else None
        return Work(phase=piece.phase, tokens=piece.tokens, sides=sides, ratio=ratio)

    def _checked(self, piece: Piece, side: Side, text: Text, references: References) -> tuple[Measured, Runner | None]:
        """Read the text under a side's settings; the runner is there only if the results are right."""
        model = self._loaded.model
        room = text.prompt.shape[1] + text.following.shape[1]
        trace, check = Trace(), None
        who = ""
        try:
            with side.in_force(), attached(model), record_calls() as trace, torch.no_grad():
                cache = DsaCache.for_model(model, max_tokens=room, batch_size=self._batch)
                results = read(model, text, cache, [piece.tokens])
            who = "the reference that it is checked against: "
            with torch.no_grad():
                check, wrong = references.check(results, side.formats())
        except (DsaError, torch.OutOfMemoryError) as error:
            wrong = who + next(iter(str(error).splitlines()), type(error).__name__)
        measured = Measured(
            name=side.name,
            wrong=wrong,
            check=check,
            backends=_backends(trace),
            figure=None,
            tokens_per_s=None,
            peak_bytes=None,
        )
        return measured, Runner(model, side, text, cache, piece.phase) if wrong is None else None


def _backends(trace: Trace) -> dict[str, str]:
    ran: dict[str, list[str]] = {}
    for op, backend in sorted(trace.decisions):
        ran.setdefault(op, []).append(backend)
    return {op: ", ".join(names) for op, names in ran.items()}
