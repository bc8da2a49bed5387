"""What was asked for on the command line of `dsa bench`. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsa_exec.cli.bench.report import Phase
from dsa_exec.cli.plan.sizes import BadOption, count_of
from dsa_exec.core.errors import DsaError

PREFILL, CONTEXT = "512,2048", "1024,4096"
"""What is measured where nothing is said."""

DECODE_TOKENS = 16
MOST_DECODE_TOKENS = 4096

CHECKED_AFTER_PREFILL = 1
"""Tokens that are read after a prompt whose prefill is timed: so much of the cache is checked, too."""


class BenchError(DsaError):
    """What was asked for cannot be measured. Says what is wanted."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Work: a prompt of so many tokens a request, or new tokens after so many.

    Attributes:
        phase: what is timed.
        tokens: of each request.
        steps: how many tokens are read after them, one by one.
    """

    phase: Phase
    tokens: int
    steps: int


def pieces_of(prefill: str | None, context: str | None, decode_tokens: str | None) -> list[Piece]:
    """The work of two lists such as `512,2K`. With one of them given, only that.

    Raises:
        BadOption: one of them is no list of different numbers, or `decode_tokens` is no number.
        BenchError: there are tokens to decode, and nothing after which to decode them.
    """
    steps = DECODE_TOKENS
    if decode_tokens is not None:
        steps = count_of("--decode-tokens", decode_tokens, most=MOST_DECODE_TOKENS)
    pieces: list[Piece] = []
    if prefill is not None or context is None:
        prompts = _lengths_of("--prefill", PREFILL if prefill is None else prefill)
        pieces += [Piece("prefill", tokens, CHECKED_AFTER_PREFILL) for tokens in prompts]
    if context is not None or prefill is None:
        contexts = _lengths_of("--context", CONTEXT if context is None else context)
        pieces += [Piece("decode", tokens, steps) for tokens in contexts]
    elif decode_tokens is not None:
        raise BenchError(
            f"--decode-tokens {decode_tokens}: nothing is decoded with --prefill alone; leave it out, or give "
            "--context as well"
        )
    return pieces


def decode_tokens_of(pieces: Sequence[Piece]) -> int | None:
    """How many tokens are timed in a repetition of decode; None where nothing is decoded."""
    return next((piece.steps for piece in pieces if piece.phase == "decode"), None)


def _lengths_of(option: str, text: str) -> list[int]:
    """The numbers of a list, in order of size. Errors have the list, and the part of it that is meant."""
    lengths: dict[int, str] = {}
    for part in text.split(","):
        try:
            length = count_of(option, part)
        except BadOption as error:
            if part == text:
                raise
            raise BadOption(option, text, f"{part!r} {error.reason}", error.wanted) from None
        if length in lengths:
            raise BadOption(option, text, f"{part!r} was there before, as {lengths[length]!r}", "each length once")
        lengths[length] = part
    return sorted(lengths)
