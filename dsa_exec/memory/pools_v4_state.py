"""The state of V4's compressors: rings of tokens that are not yet compressed, and how many draft tokens they allow."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from dsa_exec.core.errors import PlanError
from dsa_exec.layouts.dsv4 import StateLayout
from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.pool import Pool
from dsa_exec.memory.pool_parts import pool_of

C4_OVERLAP, C128_GROUP = 8, 128
"""Rows that one compression reads: two groups of 4 that overlap, one group of 128."""

LEAST_REQUESTS, MOST_REQUESTS = 2048, 4096
REQUESTS_FOR_EACH_CONTEXT = 512


def c4_ring_rows(speculative: bool) -> int:
    """Rows of the ring of a ratio-4 layer, for each page of the window."""
    return 2 * C4_OVERLAP if speculative else C4_OVERLAP


def c128_ring_rows(speculative: bool) -> int:
    """Rows of the ring of a ratio-128 layer, for each request."""
    return 2 * C128_GROUP if speculative else C128_GROUP


def require_draft_tokens(geometry: ModelGeometry, options: PlanOptions) -> None:
    """Check that rings have room for the draft tokens, which may be taken back: rows - rows of a compression + 2.

    Raises:
        PlanError: a ring has not.
    """
    for ratio, ring, group in (
        (4, c4_ring_rows(True), C4_OVERLAP),
        (128, c128_ring_rows(True), C128_GROUP),
    ):
        if ratio not in (*geometry.compress_ratios, *geometry.draft_compress_ratios):
            continue
        if ratio == C128_GROUP and options.online_c128:
            continue
        most = ring - group + 2
        if options.draft_tokens > most:
            wanted = f"at most {most}, for which the ring of {ring} rows of a ratio-{ratio} layer has room"
            raise PlanError("draft tokens", options.draft_tokens, wanted)


def estimated_requests(request_tokens: int, context_tokens: int) -> int:
    """How many requests run at once, where nobody says: 512 for each longest context that fits, from 2048 to 4096.

    floor(tokens * 512 / context) within these limits, and no more than one for every two tokens.

    Args:
        request_tokens: tokens of context of one group of requests.
        context_tokens: the longest context of a request.
    """
    estimate = request_tokens * REQUESTS_FOR_EACH_CONTEXT // context_tokens
    return min(max(LEAST_REQUESTS, min(estimate, MOST_REQUESTS)), request_tokens // 2)


def c128_state_pool(geometry: ModelGeometry, layers: Sequence[int], options: PlanOptions, requests: int) -> Pool:
    """State of ratio-128 layers, which grows with requests and not with tokens. One request more has padded rows.

    With rings of R rows there are slots * R + R + 1 rows, rounded up to 128, of twice the KV width: KV and gates.
    Online there are slots + 2 places of 1 + draft tokens rows, of three times the KV width: sums, weights and maxima.
    """
    slots = requests + 1
    if options.online_c128:
        rows, width, entries = 1 + options.draft_tokens, 3 * geometry.kv_width, slots * (1 + options.draft_tokens)
        extra_pages, holds = 2, f"{rows} running state(s) of a group of 128 tokens for each request"
        layout = StateLayout(rows, width, options.c128_state_bytes)
    else:
        ring = c128_ring_rows(options.speculative)
        entries, layout = slots * ring, StateLayout(C128_GROUP, 2 * geometry.kv_width, options.c128_state_bytes)
        extra_pages = -(-(ring + 1) // C128_GROUP)
        holds = f"KV tokens that are not yet compressed, a ring of {ring} rows for each request"
    return pool_of(
        "c128_state",
        holds,
        layout,
        layers=layers,
        entries=entries,
        entries_per_token=Fraction(0),
        extra_pages=extra_pages,
    )
