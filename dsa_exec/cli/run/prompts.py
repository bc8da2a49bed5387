"""What is to be continued: one text, or the lines of a file of prompts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from dsa_exec.cli.run.errors import RunError
from dsa_exec.cli.show_report import count


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt.

    Attributes:
        source: where it came from, in words.
        name: what its result is called.
        text: what it says.
        max_new_tokens: how many tokens are wanted at most.
    """

    source: str
    name: str | int
    text: str
    max_new_tokens: int


def read_prompt(name: str | None, max_new_tokens: int) -> Prompt:
    """The text of `--prompt`.

    Args:
        name: a file, - for standard input, or None for the text of this project.
        max_new_tokens: how many tokens are wanted at most.

    Raises:
        RunError: it cannot be read, or holds no text.
    """
    if name is None:
        text = (resources.files("dsa_exec.models") / "prompt.txt").read_text("utf-8")
        return Prompt("the text of this project", 1, text.strip(), max_new_tokens)
    raw = read_bytes("--prompt", name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunError(f"--prompt {name}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not text.strip():
        raise RunError(f"--prompt {name}: holds no text")
    return Prompt(source_of(name), 1, text, max_new_tokens)


def read_bytes(option: str, name: str) -> bytes:
    """What a file holds, or with - standard input.

    Raises:
        RunError: it cannot be read.
    """
    if name == "" or (name == "-" and sys.stdin is None):
        raise RunError(f"{option} {name!r}: there is nothing to read from")
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise RunError(f"{option} {name}: cannot be read: {error.strerror}") from None


def source_of(name: str) -> str:
    """A file's name, or what - means."""
    return "standard input" if name == "-" else name


def tokens_of(loaded: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of each prompt.

    Raises:
        RunError: a prompt is too long for the model, or the tokenizer is of another model. The first such is told.
    """
    longest = loaded.model.config.max_position_embeddings
    known = loaded.model.config.vocab_size
    found = []
    for prompt in prompts:
        ids: list[int] = loaded.tokenizer.encode(prompt.text)
        if len(ids) + prompt.max_new_tokens > longest:
            raise RunError(
                f"{prompt.source}: {count(len(ids), 'token')} and {count(prompt.max_new_tokens, 'new one')} are more "
                f"than the model's {longest} positions"
            )
        if not ids:
            raise RunError(f"{prompt.source}: the tokenizer of {loaded.name} makes no token of it")
        if max(ids) >= known:
            raise RunError(f"{loaded.name}: the tokenizer gives token {max(ids)}, and the model knows {known} of them")
        found.append(ids)
    return found
