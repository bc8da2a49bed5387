"""The environment itself, without and with parsing."""

from __future__ import annotations

import functools
import os

from benchmarks.reads.contender import Contender, Subject, environment

VARIABLE = "BENCH_ENVIRON_FUSE_TOPK"


def _subject(statement: str, text: str | None) -> Subject:
    names = {"environ": os.environ, "VARIABLE": VARIABLE}
    return Subject(statement, names, (VARIABLE,), functools.partial(environment, **{VARIABLE: text}))


def _raw(text: str | None) -> Subject:
    return _subject("environ.get(VARIABLE, '1') == '1'", text)


def _parsed() -> Subject:
    return _subject("environ.get(VARIABLE, '1').strip().lower() in ('1', 'true', 'yes', 'on')", "1")


CONTENDERS = (
    Contender("os.environ.get == '1', set", lambda: _raw("1")),
    Contender("os.environ.get == '1', not set", lambda: _raw(None)),
    Contender("os.environ.get and parse, set", _parsed),
)
