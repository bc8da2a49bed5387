"""Our scoped override, made, entered, read and left."""

from __future__ import annotations

from benchmarks.reads.bars import OVERRIDE
from benchmarks.reads.contender import Contender, Subject
from dsa_config import settings


def _build() -> Subject:
    return Subject("with settings.override(fuse_topk=False): settings.fuse_topk", {"settings": settings})


def _made_before() -> Subject:
    return Subject(
        "with scope: settings.fuse_topk", {"settings": settings, "scope": settings.override(fuse_topk=False)}
    )


CONTENDERS = (
    Contender(OVERRIDE, _build, does="override"),
    Contender("ours: settings.override, made before", _made_before, does="override"),
)
