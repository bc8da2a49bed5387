"""A file of prompts: one JSON object a line, `{"prompt": "...", "id": "a", "max_new_tokens": 8}`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dsa_config.errors import nearest
from dsa_exec.cli.run.errors import RunError
from dsa_exec.cli.run.prompts import Prompt, read_bytes, source_of

PROMPT, ID, MAX_NEW_TOKENS = "prompt", "id", "max_new_tokens"
KEYS = (PROMPT, ID, MAX_NEW_TOKENS)
MOST_NAMED = 8
"""How many further bad lines are told by number."""

MOST_SHOWN = 40
"""How many characters of a bad value are shown."""


class BadLines(RunError):
    """Lines of a file of prompts that cannot be used: `source`, and `reasons` by line number."""

    def __init__(self, source: str, reasons: dict[int, str]) -> None:
        self.source = source
        self.reasons = reasons
        first, *others = reasons
        told = f"{source} line {first}: {reasons[first]}"
        if others:
            more = ", ".join(map(str, others[:MOST_NAMED])) + (", ..." if len(others) > MOST_NAMED else "")
            told += f" ({len(others)} more such line{'' if len(others) == 1 else 's'}: {more})"
        super().__init__(told)


def read_prompts(name: str, max_new_tokens: int) -> list[Prompt]:
    """The prompts of a file, in its order. Blank lines are passed over.

    Args:
        name: the file, or - for standard input.
        max_new_tokens: for lines that do not say it themselves.

    Raises:
        BadLines: lines that are wrong, all of them.
        RunError: the file cannot be read, or holds no prompt.
    """
    raw = read_bytes("--prompts", name).removeprefix(b"\xef\xbb\xbf")
    source = source_of(name)
    prompts: list[Prompt] = []
    reasons: dict[int, str] = {}
    lines_of: dict[str | int, int] = {}
    for number, line in _lines(raw):
        try:
            document = _parsed(line)
            prompt = _prompt(f"{source} line {number}", number, document, max_new_tokens)
        except _Wrong as wrong:
            reasons[number] = str(wrong)
            continue
        if prompt.name in lines_of:
            why = "" if ID in document else ", and a line without one has its number"
            reasons[number] = f"its id {prompt.name!r} is that of line {lines_of[prompt.name]}, too{why}"
        lines_of[prompt.name] = number
        prompts.append(prompt)
    if reasons:
        raise BadLines(source, reasons)
    if not prompts:
        raise RunError(f"--prompts {name}: holds no prompt")
    return prompts


class _Wrong(Exception):
    """Why a line cannot be used."""


def _lines(raw: bytes) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(raw.split(b"\n"), 1) if line.strip())


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise _Wrong(f"is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _Wrong(f"is not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of very many digits, brackets within brackets
        raise _Wrong(f"is not JSON that can be read: {error}") from None
    if not isinstance(document, dict):
        raise _Wrong(f"is not a JSON object but {_kind(document)}")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, which may not say two things under one name: the first would be lost."""
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise _Wrong(f"{key!r} is there twice")
        document[key] = value
    return document


def _prompt(source: str, number: int, document: dict[str, Any], max_new_tokens: int) -> Prompt:
    for key in document:
        if key not in KEYS:
            close = nearest(key, KEYS)
            raise _Wrong(f"{key!r} is unknown; " + (f"did you mean {close[0]}?" if close else _allowed()))
    if PROMPT not in document:
        raise _Wrong(f"has no {PROMPT!r}; {_allowed()}")
    text, name, wanted = document[PROMPT], document.get(ID, number), document.get(MAX_NEW_TOKENS, max_new_tokens)
    if not isinstance(text, str):
        raise _Wrong(f"{PROMPT} is {_told(text)}; wanted text")
    if not text.strip():
        raise _Wrong(f"{PROMPT} holds no text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Wrong(f"{PROMPT} is no text: half a character at position {error.start}") from None
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise _Wrong(f"{ID} is {_told(name)}; wanted text or a whole number")
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise _Wrong(f"{MAX_NEW_TOKENS} is {_told(wanted)}; wanted a whole number of at least 1")
    return Prompt(source, name, text, wanted)


def _allowed() -> str:
    return f"a line has {PROMPT!r}, and may have {ID!r} and {MAX_NEW_TOKENS!r}"


def _told(value: Any) -> str:
    """A value as JSON writes it, the beginning of a long one."""
    return json.dumps(value)[:MOST_SHOWN]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number"}
    return names.get(type(value), "null")
