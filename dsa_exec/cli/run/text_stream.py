"""Text as its tokens come."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer gives for the first bytes of a character."""


class TextStream:
    """Writes the text of tokens as soon as later tokens cannot change it.

    Args:
        decode: the text of some tokens.
        write: takes the pieces of the text, which together are all of it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], write: Callable[[str], None]) -> None:
        self._decode = decode
        self._write = write
        # Tokens before `_begin` are not decoded again: what a token says may depend on the one before it, such as
        # whether a blank stands in front, but not on one long before.
        self._begin = 0
        self._written = 0

    def more(self, tokens: Sequence[int]) -> None:
        """Write what is certain.

        Args:
            tokens: all that there are so far.
        """
        text = self._new(tokens)
        if text and not text.endswith(UNFINISHED):
            self._advance(len(tokens), text)

    def finish(self, tokens: Sequence[int]) -> None:
        """Write all that is left: no token comes any more."""
        text = self._new(tokens)
        if text:
            self._advance(len(tokens), text)

    def _new(self, tokens: Sequence[int]) -> str:
        known = self._decode(tokens[self._begin : self._written])
        return self._decode(tokens[self._begin :])[len(known) :]

    def _advance(self, count: int, text: str) -> None:
        self._begin, self._written = self._written, count  # first: an interrupted write is not repeated
        self._write(text)
