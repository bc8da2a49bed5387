"""The pages that a new index-K cache would have, and the chain of reasons."""

from __future__ import annotations

from dsa_config import settings
from dsa_exec.caches.index_k_pages import decide_pages
from dsa_exec.cli.doctor.report import Condition, IndexPages, Trouble
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.preshuffle import preshuffle_conditions


def index_pages(hw: Capabilities) -> tuple[IndexPages, list[Trouble]]:
    """What an allocation would decide now on some hardware, with every condition; it is told to nobody else.

    To be called within `assumed(hw)`, and where settings that cannot be read are overridden.

    Args:
        hw: the hardware.
    """
    decided = decide_pages(settings.index_k_format, hw)
    chain = preshuffle_conditions(
        hw,
        use_aiter=settings.use_aiter,
        hip_disable_preshuffle=settings.hip_disable_preshuffle,
        aiter_enable_aot_gluon_pa_mqa_logits=settings.aiter_enable_aot_gluon_pa_mqa_logits,
    )
    found = IndexPages(
        page_tokens=decided.page_tokens,
        order=decided.order,
        why=decided.why,
        conditions=[Condition(name=it.name, found=it.found, wanted=it.wanted, holds=it.holds) for it in chain],
    )
    # Who keeps aiter or its pages off wants plain ones.
    is_wanted = settings.use_aiter and not settings.hip_disable_preshuffle
    if decided.failed is None or not is_wanted:
        return found, []
    return found, [
        Trouble(
            severity="warning",
            kind="not-preshuffled",
            name="index-K cache",
            message=f"aiter is wanted, and a new index-K cache would have pages of one token: {decided.failed}",
            origin=settings.explain("use_aiter").origin,
            suggestion="docs/rocm.md",
        )
    ]
