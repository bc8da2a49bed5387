"""What is decided once for all layers of a forward step."""

from __future__ import annotations

from collections.abc import Iterator

from dsa_config import settings
from dsa_exec.cli.doctor.phase_calls import INDEX_TOPK
from dsa_exec.cli.doctor.report import StepDecision, Trouble
from dsa_exec.cli.doctor.typical_caches import mla_layout
from dsa_exec.cli.doctor.typical_calls import Sizes, decode_words
from dsa_exec.core.errors import UnsupportedPath
from dsa_exec.core.hardware import Capabilities
from dsa_exec.ops.paged_mqa_logits.schedule import paged_form, refuses_schedule
from dsa_exec.runtime.attention_path import AttentionSettings, Phase, attention_path


def step_decisions(hw: Capabilities, sizes: Sizes) -> tuple[list[StepDecision], list[Trouble]]:
    """The decisions for steps of typical sizes on some hardware, each with the reason, and the steps that would fail.

    To be called within `assumed(hw)`, and where settings that cannot be read are overridden.

    Args:
        hw: the hardware.
        sizes: of the steps.
    """
    prompts = sorted({min(sizes.context, INDEX_TOPK), sizes.context})
    found: list[StepDecision] = []
    troubles: list[Trouble] = []
    for tokens in prompts:
        _attends("prefill", f"attention, prefill of {tokens} tokens", tokens, hw, found, troubles)
    for n in sizes.next_n:
        phase: Phase = "decode" if n == 1 else "target_verify"
        _attends(phase, f"attention, {decode_words(n)}", None, hw, found, troubles)
    return [*found, *_schedules(hw, sizes)], troubles


def _attends(
    phase: Phase, what: str, tokens: int | None, hw: Capabilities, found: list[StepDecision], troubles: list[Trouble]
) -> None:
    """Add the way in which a batch attends, or why it would fail."""
    chosen = AttentionSettings.now()
    try:
        path = attention_path(phase, mla_layout(), hw, chosen, index_topk=INDEX_TOPK, longest_tokens=tokens)
    except UnsupportedPath as error:
        name, _ = chosen.choice(phase)
        found.append(StepDecision(what=what, choice=None, why=str(error)))
        troubles.append(
            Trouble(
                severity="error",
                kind="unsupported-path",
                name=name,
                message=f"{what}, would fail: {error}",
                origin=settings.explain(name).origin,
                suggestion=f"{name}=auto chooses for each batch",
            )
        )
    else:
        found.append(StepDecision(what=what, choice=path.way, why=path.why))


def _schedules(hw: Capabilities, sizes: Sizes) -> Iterator[StepDecision]:
    """How deep_gemm's paged kernel would be given the rows of a step; nothing where it cannot be used."""
    if refuses_schedule(hw) is not None:
        return
    for n in sizes.next_n:
        form, why = paged_form("decode" if n == 1 else "target_verify", sizes.batch, n, hw)
        yield StepDecision(what=f"rows for deep_gemm's paged kernel, {decode_words(n)}", choice=form, why=why)
