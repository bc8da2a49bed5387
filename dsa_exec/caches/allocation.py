"""Allocations as moments of the settings: until when a change matters for a cache that is there."""

from __future__ import annotations

from typing import Self

from dsa_config import settings

MLA_SETTINGS = ("kv_format",)
"""What decides about an MLA cache."""

INDEX_K_SETTINGS = (
    "index_k_format",
    "use_aiter",
    "hip_disable_preshuffle",
    "aiter_enable_aot_gluon_pa_mqa_logits",
)
"""What decides about an index-K cache."""


class Allocation:
    """Held by a cache and by what takes its place as it grows: while it is held, changes are too late for the cache."""

    __slots__ = ("__weakref__",)

    def __deepcopy__(self, _: object) -> Self:
        return self


def allocated(what: str, decided_by: tuple[str, ...]) -> Allocation:
    """Say that a cache was allocated.

    Args:
        what: in words.
        decided_by: the settings that decided about it.

    Returns:
        What the cache holds, so that the moment is over when the cache is gone.
    """
    allocation = Allocation()
    settings.passed("allocate", what, made=[allocation], decided_by=decided_by)
    return allocation
