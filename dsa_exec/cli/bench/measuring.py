"""All work of a benchmark: checked, then timed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from dsa_exec.cli.bench.asked import Piece
from dsa_exec.cli.bench.checking import References
from dsa_exec.cli.bench.failures import FailedRun, reason_of
from dsa_exec.cli.bench.passes import Text, read_on, read_prompt, text_of
from dsa_exec.cli.bench.report import Check, Measured, Phase, Work
from dsa_exec.cli.bench.sides import Side
from dsa_exec.cli.bench.timing import WARM_UPS, Runner, figure_of, ratio_of, time_in_turn
from dsa_exec.cli.progress import late_progress
from dsa_exec.dispatch.trace import Trace, record_calls
from dsa_exec.integrations.transformers import DsaCache, NotFinite, attached


class Bench:
    """Measures pieces of work.

    Args:
        loaded: the model and its tokenizer.
        sides: one or two.
        passage: what is read.
        batch: requests.
        repetitions: timed ones.
    """

    def __init__(self, loaded: Any, sides: Sequence[Side], *, passage: str, batch: int, repetitions: int) -> None:
        self._loaded = loaded
        self._sides = sides
        self._passage = passage
        self._batch = batch
        self._repetitions = repetitions
        self.done: list[Work] = []

    def run(self, pieces: Sequence[Piece]) -> None:
        """Measure them all. After an interrupt, `done` has those that were whole.

        Raises:
            NotFinite: the model's logits are NaN or infinite, and nothing was done before that could be told.
        """
        for piece in pieces:
            self.done.append(self._measured(piece))
            if self._loaded.model.device.type == "cuda":
                with contextlib.suppress(RuntimeError):  # of a device that a backend has left unusable
                    torch.cuda.empty_cache()

    def _measured(self, piece: Piece) -> Work:
        try:
            text = text_of(self._loaded, self._passage, self._batch, piece.tokens, piece.steps)
        except RuntimeError as error:  # of a device that a backend has left unusable
            sides = [_untimed(side, reason_of(error)) for side in self._sides]
            return Work(phase=piece.phase, tokens=piece.tokens, sides=sides, ratio=None)
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
        try:
            with (
                late_progress(what, WARM_UPS + self._repetitions) as advance,
                attached(self._loaded.model),
            ):
                seconds = time_in_turn(ready, self._repetitions, advance)
        except FailedRun as error:
            checked[error.number] = checked[error.number].model_copy(update={"wrong": str(error)})
            return Work(phase=piece.phase, tokens=piece.tokens, sides=checked, ratio=None)
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
        traces: dict[Phase, Trace] = {"prefill": Trace(), "decode": Trace()}
        check = None
        who = ""
        try:
            with side.in_force(), attached(model), torch.no_grad():
                cache = DsaCache.for_model(model, max_tokens=room, batch_size=self._batch)
                with record_calls() as traces["prefill"]:
                    results = read_prompt(model, text, cache, [piece.tokens])
                with record_calls() as traces["decode"]:
                    results = read_on(model, text, cache, results)
            who = "the reference that it is checked against: "
            with torch.no_grad():
                check, wrong = references.check(results, side.formats())
        except NotFinite as error:
            if not self.done:
                raise
            wrong = reason_of(error)
        except Exception as error:  # a backend may raise anything
            wrong = who + reason_of(error)
        measured = _untimed(side, wrong, check, traces[piece.phase])
        return measured, Runner(model, side, text, cache, piece.phase) if wrong is None else None


def _untimed(side: Side, wrong: str | None, check: Check | None = None, trace: Trace | None = None) -> Measured:
    return Measured(
        name=side.name,
        wrong=wrong,
        check=check,
        backends=_backends(trace or Trace()),
        figure=None,
        tokens_per_s=None,
        peak_bytes=None,
    )


def _backends(trace: Trace) -> dict[str, str]:
    ran: dict[str, list[str]] = {}
    for op, backend in sorted(trace.decisions):
        ran.setdefault(op, []).append(backend)
    return {op: ", ".join(names) for op, names in ran.items()}
