"""pydantic-settings as it is meant to be used: a frozen instance, and one made anew for every read."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict

from benchmarks.reads.contender import Contender, Subject


class Flags(BaseSettings):
    """One flag."""

    model_config = SettingsConfigDict(env_prefix="BENCH_PYDANTIC_", frozen=True)

    fuse_topk: bool = True


VARIABLES = ("BENCH_PYDANTIC_FUSE_TOPK",)


def _frozen() -> Subject:
    return Subject("flags.fuse_topk", {"flags": Flags()}, VARIABLES)


def _anew() -> Subject:
    return Subject("Flags().fuse_topk", {"Flags": Flags}, VARIABLES)


CONTENDERS = (
    Contender("pydantic-settings, frozen instance", _frozen),
    Contender("pydantic-settings, made anew (1 field)", _anew),
)
