"""A module whose `__getattr__` calls a function per variable, as vLLM has it: uncached, and cached as in service."""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Callable
from typing import Any

from benchmarks.reads.contender import Contender, Subject, environment

VARIABLE = "BENCH_VLLM_FUSE_TOPK"

variables: dict[str, Callable[[], Any]] = {VARIABLE: lambda: bool(int(os.getenv(VARIABLE, "1")))}


def _lookup(name: str) -> Any:
    if name in variables:
        return variables[name]()
    raise AttributeError(name)


def _build(text: str | None, lookup: Callable[[str], Any] = _lookup) -> Subject:
    envs = types.ModuleType("envs")
    envs.__dict__["__getattr__"] = lookup
    around = functools.partial(environment, **{VARIABLE: text})
    return Subject(f"envs.{VARIABLE}", {"envs": envs}, (VARIABLE,), around)


CONTENDERS = (
    Contender("vLLM style module __getattr__, set", lambda: _build("1")),
    Contender("vLLM style module __getattr__, not set", lambda: _build(None)),
    Contender("vLLM style module __getattr__, cached", lambda: _build(None, functools.cache(_lookup))),
)
