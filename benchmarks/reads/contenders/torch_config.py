"""torch's own configuration modules: a flag read, and its `patch` around one."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.reads.contender import Contender, Subject


def _config() -> Any:
    return importlib.import_module("benchmarks.reads.torch_flags").installed()


def _read() -> Subject:
    return Subject("config.fuse_topk", {"config": _config()}, ("BENCH_TORCH_FUSE_TOPK",))


def _patch() -> Subject:
    return Subject("with config.patch(fuse_topk=False): config.fuse_topk", {"config": _config()})


CONTENDERS = (
    Contender("torch config module", _read, library="torch"),
    Contender("torch config.patch", _patch, library="torch", does="override"),
)
