"""Bytes as tokens, for models without a tokenizer: token n below 256 is byte n."""

from __future__ import annotations

from collections.abc import Sequence

BYTE_TOKENS = 256


class BytesTokenizer:
    """What `dsa run` needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """The text's UTF-8 bytes."""
        return list(text.encode())

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of some tokens; bytes that are not UTF-8 become replacement characters.

        Args:
            tokens: token ids.
            skip_special_tokens: leave out tokens that are no bytes; otherwise they are shown by number.
        """
        text, pending = "", bytearray()
        for token in tokens:
            if token < BYTE_TOKENS:
                pending.append(token)
            elif not skip_special_tokens:
                text += pending.decode(errors="replace") + f"<{token}>"
                pending.clear()
        return text + pending.decode(errors="replace")
