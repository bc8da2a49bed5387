"""dynaconf: a value loaded from the environment, and one that is declared to be read afresh."""

from __future__ import annotations

from typing import Any

from benchmarks.reads.contender import Contender, Subject, environment

VARIABLE = "BENCH_DYNACONF_FUSE_TOPK"


def _build(**options: Any) -> Subject:
    import dynaconf

    with environment(**{VARIABLE: "@bool 1"}):
        flags = dynaconf.Dynaconf(envvar_prefix="BENCH_DYNACONF", **options)
        flags.FUSE_TOPK  # noqa: B018 - its loading is lazy
    return Subject("flags.FUSE_TOPK", {"flags": flags}, (VARIABLE,), lambda: environment(**{VARIABLE: "@bool 1"}))


CONTENDERS = (
    Contender("dynaconf value", _build, library="dynaconf"),
    Contender("dynaconf fresh value", lambda: _build(fresh_vars=["FUSE_TOPK"]), library="dynaconf"),
)
