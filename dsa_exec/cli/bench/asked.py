"""What was asked for on the command line of `dsa bench`. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from dsa_exec.cli.bench.report import Phase
from dsa_exec.cli.plan.sizes import counts_of
from dsa_exec.core.errors import DsaError

PREFILL, CONTEXT = (512, 2048), (1024, 4096)
"""What is measured where nothing is said."""


class BenchError(DsaError):
    """What was asked for cannot be measured. Says what is wanted."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Work: a prompt of so many tokens a request, or new tokens after so many."""

    phase: Phase
    tokens: int


def pieces_of(prefill: str | None, context: str | None) -> list[Piece]:
    """The work of two lists such as `512,2K`. With one of them given, only that.

    Raises:
        BadOption: one of them is no list of numbers.
    """
    prompts = PREFILL if prefill is None else counts_of("--prefill", prefill)
    contexts = CONTEXT if context is None else counts_of("--context", context)
    pieces: list[Piece] = []
    if prefill is not None or context is None:
        pieces += [Piece("prefill", tokens) for tokens in prompts]
    if context is not None or prefill is None:
        pieces += [Piece("decode", tokens) for tokens in contexts]
    return pieces
