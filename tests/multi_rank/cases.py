"""What ranks do in the tests: each function runs on every rank of a group, with the rank as its first argument."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist

from dsa_config import LiveSettings, live, setting, settings
from dsa_config.errors import Rejected
from dsa_exec.runtime.distributed import agree, broadcast_overrides

NAMES = ("fuse_topk", "kv_format", "mqa_logits_max_chunk_bytes", "debug_log_decisions")


@dataclass(frozen=True)
class Rank:
    """What is particular about one rank: variables, what it sets and loads, what it says of itself to flags."""

    env: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    flag_context: Mapping[str, Any] = field(default_factory=dict)

    def hold(self) -> None:
        os.environ.update(self.env)
        settings.set(**self.set)
        settings.load(**self.load)
        settings.set_flag_context(**self.flag_context)


@dataclass(frozen=True)
class Outcome:
    """How a call ended on one rank: the error's type and words, or none; how long it took; settings afterwards."""

    error: str
    words: str
    seconds: float
    values: Mapping[str, Any]
    origins: Mapping[str, str]


def outcome_of(call: Callable[[], object]) -> Outcome:
    began = time.monotonic()
    error = words = ""
    try:
        call()
    except Exception as raised:
        error, words = type(raised).__name__, str(raised)
    seconds = time.monotonic() - began
    values = {name: getattr(settings, name) for name in NAMES}
    return Outcome(error, words, seconds, values, {name: settings.explain(name).origin for name in NAMES})


def compare(rank: int, particular: Mapping[int, Rank]) -> Outcome:
    particular.get(rank, Rank()).hold()
    return outcome_of(agree)


def compare_in_scope(rank: int) -> Outcome:
    with settings.override(fuse_topk=rank != 2):
        return outcome_of(agree)


def compare_and_warn(rank: int, particular: Mapping[int, Rank], times: int) -> tuple[list[str], list[int]]:
    """The warnings of several comparisons, and how many differences each returned."""
    particular.get(rank, Rank()).hold()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts = [len(agree(policy="warn")) for _ in range(times)]
    return [f"{it.category.__name__}: {it.message}" for it in caught], counts


def compare_members(rank: int, members: list[int], particular: Mapping[int, Rank]) -> Outcome:
    group = dist.new_group(members)
    particular.get(rank, Rank()).hold()
    return outcome_of(lambda: agree(group))


def broadcast(rank: int, particular: Mapping[int, Rank], source: int = 0) -> Outcome:
    particular.get(rank, Rank()).hold()
    return outcome_of(lambda: broadcast_overrides(source=source))


def broadcast_in_scope(rank: int) -> list[tuple[bool, int]]:
    """What is read within an override, and after it."""
    if rank == 0:
        settings.set(fuse_topk=False, mqa_logits_max_chunk_bytes=4096)
    with settings.override(fuse_topk=True):
        broadcast_overrides()
        within = settings.fuse_topk, settings.mqa_logits_max_chunk_bytes
    return [within, (settings.fuse_topk, settings.mqa_logits_max_chunk_bytes)]


def broadcast_and_take_back(rank: int) -> list[bool]:
    """What is read after rank 0 gave a value, and after it took it back."""
    seen = []
    for step in range(2):
        if rank == 0:
            settings.set(fuse_topk=False) if step == 0 else settings.reset("fuse_topk")
        broadcast_overrides()
        seen.append(settings.fuse_topk)
    return seen


def variants(rank: int, flags: str, keys: list[str]) -> list[bool]:
    """What a flag says for each replica; the rank is known to rules, and no part of the key."""
    settings.load(flags=flags)
    seen = []
    for key in keys:
        settings.set_flag_context(targetingKey=key, rank=rank)
        seen.append(settings.fuse_topk)
    return seen


def without_one(rank: int, missing: int, end: str, call: str, timeout: float) -> Outcome:
    """One rank dies or hangs before the others call."""
    if rank == missing:
        if end == "dies":
            os._exit(3)
        time.sleep(3600)
    settings.set(fuse_topk=False)
    function = {"agree": agree, "broadcast_overrides": broadcast_overrides}[call]
    return outcome_of(lambda: function(timeout=timeout))


def with_a_late_one(rank: int, late: int, timeout: float) -> Outcome:
    """One rank comes when the others have given up."""
    if rank == late:
        time.sleep(3 * timeout)
    return outcome_of(lambda: agree(timeout=timeout))


def refuse_arguments(rank: int) -> list[str]:
    """The words for arguments that are none; no rank waits for another."""
    wrong: list[Callable[[], object]] = [
        lambda: agree(policy="ignore"),  # type: ignore[arg-type]
        lambda: agree(timeout=0),
        lambda: broadcast_overrides(source=9),
    ]
    return [outcome_of(call).words for call in wrong]


def bad_values(rank: int, particular: Mapping[int, Rank]) -> tuple[str, str]:
    """How a comparison ends where settings cannot be read."""
    particular.get(rank, Rank()).hold()
    try:
        agree()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def broadcast_refused(rank: int, refuses: int) -> Outcome:
    """Rank 0 gives two values; on one rank there is no such backend any more."""
    reader = settings._readers["topk_backend"]
    parse = reader.setting.parse
    if rank == 0:
        settings.set(kv_format="model", topk_backend="torch")
    if rank == refuses:
        object.__setattr__(reader.setting, "parse", _refuse)
    try:
        return outcome_of(broadcast_overrides)
    finally:
        object.__setattr__(reader.setting, "parse", parse)


class Odd(LiveSettings):
    """Settings with a value that nobody can send."""

    thing: Any = setting(None)


def broadcast_what_has_no_text(rank: int) -> tuple[str, str, bool]:
    """How it ends, and whether the value is still what it was."""
    odd = live(Odd)
    given = object if rank == 0 else None
    odd.set(thing=given)
    outcome = outcome_of(lambda: broadcast_overrides(of=odd))
    return outcome.error, outcome.words, odd.thing is given


def _refuse(given: object) -> object:
    raise Rejected(f"{given!r} is not installed here")
