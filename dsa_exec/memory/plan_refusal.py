"""What to say of a stage in which fewer tokens fit than one request needs, and what to change by how much."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

from dsa_exec.core.errors import PlanError
from dsa_exec.memory.plan_choices import Choices, Stage
from dsa_exec.memory.plan_fit import largest, least_tokens
from dsa_exec.memory.pools_v4 import admission_tokens, swa_tokens


def too_small(choices: Choices, stage: Stage, tokens: int) -> PlanError:
    """The error about such a stage.

    Args:
        choices: what was asked for.
        stage: the stage.
        tokens: what fits there.
    """
    page, least, options = choices.page_tokens, least_tokens(choices), choices.options
    where = "of a rank" + (f" in stage {stage.pp}" if choices.world.pp > 1 else "")
    remedies = _remedies(choices, stage, least)
    if not choices.geometry.compressed or tokens == 0:
        wanted = f"at least {least}, " + ("one page" if least == page else "with which one request has room")
        return PlanError(f"tokens that fit in the pools {where}", tokens, wanted, _sentence(remedies))
    admission = admission_tokens(choices.geometry, options, page)
    ratio = _least_ratio(choices, stage, admission)
    if ratio is not None:
        remedies.insert(0, f"raise swa_full_tokens_ratio from {float(options.swa_ratio):g} to {_rounded_up(ratio)}")
    window = f"the window of {choices.geometry.window_tokens} tokens"
    if options.draft_tokens:
        window += f" and {options.draft_tokens} draft tokens"
    wanted = f"at least {admission} for one request: {window} can lie in {admission // page} pages of {page}"
    got = f"{swa_tokens(tokens, options.swa_ratio, page)} (of {tokens} tokens of context)"
    return PlanError(f"tokens of the sliding-window pool {where}", got, wanted, _sentence(remedies))


def _remedies(choices: Choices, stage: Stage, least: int) -> list[str]:
    """What would make room for the least tokens."""
    needed, limit = choices.bytes(stage, least), choices.options.max_tokens
    remedies = []
    if needed > stage.memory_bytes:
        more = needed - stage.memory_bytes
        remedies.append(f"give its pools {more} bytes more ({needed} in place of {stage.memory_bytes})")
        remedies += _fewer_requests(choices, stage, least)
    if limit is not None and limit < least:
        remedies.append(f"raise max tokens from {limit} to at least {least}")
        if len(remedies) > 1:  # neither is enough alone
            return [" and ".join((remedies[0], remedies[-1]))]
    return remedies


def _fewer_requests(choices: Choices, stage: Stage, least: int) -> list[str]:
    """With how many requests their state would leave room, if it is their state that takes it."""
    now, dp = choices.requests(least), choices.world.dp
    if now is None or not choices.geometry.compressed:
        return []

    def fits(requests: int) -> bool:
        return _with(choices, max_running_requests=requests * dp).bytes(stage, least) <= stage.memory_bytes

    most = largest(fits, now) * dp
    if not most:
        return []
    if choices.options.max_running_requests is None:
        return [f"give max_running_requests, at most {most} ({now * dp} are estimated)"]
    return [f"lower max_running_requests from {choices.options.max_running_requests} to at most {most}"]


def _least_ratio(choices: Choices, stage: Stage, admission: int) -> Fraction | None:
    """The least ratio with which a request is admitted in the memory that there is; None if there is none."""
    page, limit = choices.page_tokens, choices.options.max_tokens

    def fits(pages: int) -> bool:
        tokens = admission + (pages - 1) * page
        ratio = Fraction(admission, tokens)
        return _with(choices, swa_full_tokens_ratio=ratio).bytes(stage, tokens) <= stage.memory_bytes

    most = None if limit is None else max(0, (limit - admission) // page + 1)
    pages = largest(fits, most)
    return Fraction(admission, admission + (pages - 1) * page) if pages else None


def _with(choices: Choices, **changes: Any) -> Choices:
    return dataclasses.replace(choices, options=dataclasses.replace(choices.options, **changes))


def _rounded_up(ratio: Fraction) -> str:
    """With four decimals, and not less: `0.2`, `0.0334`."""
    return f"{math.ceil(ratio * 10**4) / 10**4:.4f}".rstrip("0").rstrip(".")


def _sentence(remedies: list[str]) -> str:
    text = ", or ".join(remedies)
    return text[:1].upper() + text[1:]
