"""What `dsa plan --sweep` was asked for: its own options, and which of the others go with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from dsa_exec.cli.plan.asked import MOST_RANKS, Texts, option_of
from dsa_exec.cli.plan.sizes import BadOption, count_of, counts_of, fraction_of, size_of
from dsa_exec.core.errors import DsaError
from dsa_exec.planning.machine import Machine, machine

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
CONTEXTS = tuple(1024 * size for size in (64, 128, 256, 512, 1024))

MOST_CONTEXT = 2**24
"""Longer than any model's; a longer prefill would be so many chunks that a sweep takes minutes."""

SLOWEST, FASTEST = 0.001, 100_000
"""GB/s of a link: below and above what any has."""

ITS_SHARE = ("model", "plot", "gpu_mem", "mem_fraction_static", "page_size")
"""Options of a plan that a sweep has too."""


@dataclass(frozen=True, slots=True)
class SweepTexts:
    """The options that only a sweep has, as they were typed; None where one was not."""

    gpus: str | None = None
    contexts: str | None = None
    node_gpus: str | None = None
    nvlink: str | None = None
    network: str | None = None
    gemm_share: str | None = None


@dataclass(frozen=True, slots=True)
class SweepAsked:
    """What was asked for.

    Attributes:
        model: the path of `--model`.
        gpu_bytes: memory of one GPU.
        mem_fraction_static: None where it was not said.
        page_tokens: None for the model's default.
        gpus: how many, in order.
        contexts: in tokens, in order.
        machine: with what was said of it in the place of its own numbers.
        given: which numbers of the machine were said, and by which option.
    """

    model: Path
    gpu_bytes: int
    mem_fraction_static: Fraction | None
    page_tokens: int | None
    gpus: tuple[int, ...]
    contexts: tuple[int, ...]
    machine: Machine
    given: dict[str, str]


class OptionsApart(DsaError, ValueError):
    """Options that do not go together: `options` and `why`."""

    def __init__(self, options: tuple[str, ...], why: str) -> None:
        self.options = options
        self.why = why
        super().__init__(f"{', '.join(options)}: {why}")


def require_no_sweep(texts: SweepTexts) -> None:
    """Refuse what only a sweep has.

    Raises:
        OptionsApart: some of it was given.
    """
    given = _given(texts, dataclasses.fields(texts))
    if given:
        raise OptionsApart(given, "only with --sweep")


def sweep_asked_by(texts: Texts, own: SweepTexts, *, explain: bool) -> SweepAsked:
    """Every option's text read.

    Raises:
        OptionsApart: an option was given that a sweep does not take.
        BadOption: one is not what the option takes.
    """
    other = _given(texts, (field for field in dataclasses.fields(texts) if field.name not in ITS_SHARE))
    if explain:
        other = (*other, "--explain")
    if other:
        why = "not with --sweep, which tries every split of its own, with FP8 caches and no drafts"
        raise OptionsApart(other, f"{why}; it has --gpus and --contexts")
    fraction, page = texts.mem_fraction_static, texts.page_size
    said: dict[str, float] = {}
    for name, field in (("nvlink", "nvlink_gb_s"), ("network", "network_gb_s")):
        if (text := getattr(own, name)) is not None:
            said[field] = _rate(option_of(name), text)
    if own.node_gpus is not None:
        said["node_gpus"] = count_of("--node-gpus", own.node_gpus, most=MOST_RANKS)
    if own.gemm_share is not None:
        said["gemm_share"] = float(fraction_of("--gemm-share", own.gemm_share))
    options = {"nvlink_gb_s": "--nvlink", "network_gb_s": "--network"}
    return SweepAsked(
        model=texts.model,
        gpu_bytes=size_of("--gpu-mem", texts.gpu_mem),
        mem_fraction_static=None if fraction is None else fraction_of("--mem-fraction-static", fraction),
        page_tokens=None if page is None else count_of("--page-size", page),
        gpus=GPUS if own.gpus is None else _counts("--gpus", own.gpus, MOST_RANKS),
        contexts=CONTEXTS if own.contexts is None else _counts("--contexts", own.contexts, MOST_CONTEXT),
        machine=dataclasses.replace(machine(), **said),  # type: ignore[arg-type]  # node_gpus is an int
        given={field: options.get(field, option_of(field)) for field in said},
    )


def _given(texts: Texts | SweepTexts, fields: Iterable[dataclasses.Field[object]]) -> tuple[str, ...]:
    return tuple(option_of(field.name) for field in fields if getattr(texts, field.name) not in (None, False))


def _counts(option: str, text: str, most: int) -> tuple[int, ...]:
    if not all(part.strip() for part in text.split(",")):
        raise BadOption(option, text, "has an empty part", "whole numbers with a comma between them")
    return counts_of(option, text, most=most)


def _rate(option: str, text: str) -> float:
    wanted = f"a number of GB/s (10^9 bytes a second) from {SLOWEST:g} to {FASTEST}"
    try:
        rate = float(text)
    except ValueError:
        raise BadOption(option, text, "is no such number", wanted) from None
    if not SLOWEST <= rate <= FASTEST:  # nan is not either
        raise BadOption(option, text, "is out of range", wanted)
    return rate
