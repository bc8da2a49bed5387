"""A value as the text that its setting's parser reads back: for child processes, sample files and messages."""

from __future__ import annotations

import json
from typing import Any

from pydantic import SecretBytes, SecretStr
from pydantic_core import to_jsonable_python


def text_of(value: Any) -> str:
    """The text of a value: `1`, `none`, plain words and numbers, JSON for what has structure.

    Raises:
        TypeError: a value that has no text.
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, SecretBytes):
        return value.get_secret_value().decode()
    try:
        plain = to_jsonable_python(value)
    except ValueError as error:  # pydantic's own serialisation error
        raise TypeError(f"{type(value).__name__} has no text ({error})") from None
    return plain if isinstance(plain, str) else json.dumps(plain)
