"""What was asked for, as the command line has it, and as the planner takes it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import get_args

from dsa_exec.cli.plan.sizes import BadOption, count_of, counts_of, fraction_of, size_of
from dsa_exec.core.errors import DsaError
from dsa_exec.memory.plan_options import IndexFormat, KvFormat, PlanOptions
from dsa_exec.memory.plan_world import World

MOST_RANKS = 2**14
"""More than any deployment has; each is a row of the plan."""

STATE_BYTES = {"f32": 4, "bf16": 2}

PREFILL_ROWS = (1024, 4096, 8192, 16384, 32768)
"""Rows of a prefill that the report shows where none are asked for."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The options of the command, as they were typed; None where one was not.

    Attributes:
        model: the path of `--model`.
        plot: the path of `--plot`.
    """

    model: Path
    gpu_mem: str
    tp: str | None = None
    pp: str | None = None
    dp: str | None = None
    cp: str | None = None
    mem_fraction_static: str | None = None
    weights: str | None = None
    kv_dtype: str | None = None
    page_size: str | None = None
    draft_tokens: str | None = None
    draft_layers: str | None = None
    max_running_requests: str | None = None
    max_tokens: str | None = None
    context: str | None = None
    prefill: str | None = None
    stage_layers: str | None = None
    swa_full_tokens_ratio: str | None = None
    index_k_dtype: str | None = None
    state_dtype: str | None = None
    online_c128: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for.

    Attributes:
        gpu_bytes: memory of one device.
        world: the processes.
        options: of the planner.
        mem_fraction_static: None where it was not said.
        weights_bytes: of one rank; None where it was not said.
        prefill_rows: query rows on one rank.
        given: names of the options that were given, for the origin of each number.
    """

    gpu_bytes: int
    world: World
    options: PlanOptions
    mem_fraction_static: Fraction | None
    weights_bytes: int | None
    prefill_rows: tuple[int, ...]
    given: frozenset[str]


def asked_by(texts: Texts) -> Asked:
    """Every option's text read.

    Raises:
        BadOption: one is not what the option takes.
        PlanError: the sizes of the world do not go together.
    """
    sizes = {name: _count(texts, name, 1) or 1 for name in ("tp", "pp", "dp", "cp")}
    world = World(**sizes)
    if world.ranks > MOST_RANKS:
        raise TooManyRanks(sizes, world.ranks)
    usual = PlanOptions()
    ratio = texts.swa_full_tokens_ratio
    state = STATE_BYTES[_word(texts, "state_dtype", tuple(STATE_BYTES)) or "f32"]
    options = PlanOptions(
        kv=_word(texts, "kv_dtype", get_args(KvFormat)) or usual.kv,  # type: ignore[arg-type]
        index_k=_word(texts, "index_k_dtype", get_args(IndexFormat)) or usual.index_k,  # type: ignore[arg-type]
        page_tokens=_count(texts, "page_size", 1),
        draft_tokens=_count(texts, "draft_tokens", 0) or 0,
        draft_layers=_count(texts, "draft_layers", 0),
        max_running_requests=_count(texts, "max_running_requests", 1),
        max_tokens=_count(texts, "max_tokens", 1),
        context_tokens=_count(texts, "context", 1),
        swa_full_tokens_ratio=usual.swa_full_tokens_ratio
        if ratio is None
        else fraction_of("--swa-full-tokens-ratio", ratio),
        c4_state_bytes=state,
        c128_state_bytes=state,
        online_c128=texts.online_c128,
        stage_layers=None if texts.stage_layers is None else _in_order("--stage-layers", texts.stage_layers),
    )
    fraction, weights = texts.mem_fraction_static, texts.weights
    return Asked(
        gpu_bytes=size_of("--gpu-mem", texts.gpu_mem),
        world=world,
        options=options,
        mem_fraction_static=None if fraction is None else fraction_of("--mem-fraction-static", fraction),
        weights_bytes=None if weights is None else size_of("--weights", weights, least=0),
        prefill_rows=PREFILL_ROWS if texts.prefill is None else counts_of("--prefill", texts.prefill),
        given=frozenset(name for name in Texts.__dataclass_fields__ if getattr(texts, name) not in (None, False)),
    )


class TooManyRanks(DsaError, ValueError):
    """A world of more processes than a plan is made for: `sizes`, `ranks`."""

    def __init__(self, sizes: dict[str, int], ranks: int) -> None:
        self.sizes = sizes
        self.ranks = ranks
        words = " ".join(f"--{name} {size}" for name, size in sizes.items())
        super().__init__(f"{words} are {ranks} ranks; wanted at most {MOST_RANKS}")


def option_of(name: str) -> str:
    """How the command line spells a name: `--page-size`."""
    return f"--{name.replace('_', '-')}"


def _count(texts: Texts, name: str, least: int) -> int | None:
    text = getattr(texts, name)
    return None if text is None else count_of(option_of(name), text, least=least)


def _word(texts: Texts, name: str, allowed: tuple[str, ...]) -> str | None:
    text = getattr(texts, name)
    if text is not None and text not in allowed:
        raise BadOption(option_of(name), text, "is unknown", f"one of {', '.join(allowed)}")
    return None if text is None else str(text)


def _in_order(option: str, text: str) -> tuple[int, ...]:
    return tuple(count_of(option, part) for part in text.split(","))
