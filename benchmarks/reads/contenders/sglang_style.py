"""Environment fields as SGLang has them, written from their described behaviour: read and parsed on every `get()`."""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

from benchmarks.reads.bars import SGLANG_ALIAS
from benchmarks.reads.contender import Contender, Subject, environment

NAME, OLD_NAME = "BENCH_SGLANG_DSA_FUSE_TOPK", "BENCH_SGLANG_NSA_FUSE_TOPK"


class EnvBool:
    """A field whose storage is the process environment; a bad text becomes the default, with a warning."""

    def __init__(self, name: str, default: Any) -> None:
        self.name, self.default, self.is_none = name, default, False

    def get(self) -> Any:
        """The value as of now."""
        text = os.getenv(self.name)
        if self.is_none:
            assert text == str(None)
            return None
        if text is None:
            return self.default() if callable(self.default) else self.default
        try:
            return self.parse(text)
        except ValueError as error:
            warnings.warn(f"{self.name}: {error}; the default is used", stacklevel=2)
            return self.default

    def parse(self, text: str) -> bool:
        """The two lists of words."""
        word = text.lower()
        if word in ("true", "1", "yes", "y"):
            return True
        if word in ("false", "0", "no", "n"):
            return False
        raise ValueError(f"{text!r} is not a boolean")


class EnvBoolWithAlias(EnvBool):
    """A field with an earlier name, whose text is copied to the present name by the first read that finds it."""

    def __init__(self, name: str, default: Any, old_name: str) -> None:
        super().__init__(name, default)
        self.old_name = old_name

    def get(self) -> Any:
        """The value as of now, but for the earlier name."""
        if self.name not in os.environ and self.old_name in os.environ:
            warnings.warn(f"{self.old_name} is deprecated: use {self.name}", DeprecationWarning, stacklevel=2)
            os.environ[self.name] = os.environ[self.old_name]
        return super().get()


def _build(field: EnvBool, text: str | None, names: tuple[str, ...]) -> Subject:
    texts = {NAME: text, OLD_NAME: None}
    return Subject("field.get()", {"field": field}, names, functools.partial(environment, **texts))


CONTENDERS = (
    Contender("SGLang style EnvBool, set", lambda: _build(EnvBool(NAME, True), "1", (NAME,))),
    Contender("SGLang style EnvBool, not set", lambda: _build(EnvBool(NAME, True), None, (NAME,))),
    Contender(
        "SGLang style EnvBoolWithAlias, set",
        lambda: _build(EnvBoolWithAlias(NAME, True, OLD_NAME), "1", (NAME, OLD_NAME)),
    ),
    Contender(SGLANG_ALIAS, lambda: _build(EnvBoolWithAlias(NAME, True, OLD_NAME), None, (NAME, OLD_NAME))),
)
