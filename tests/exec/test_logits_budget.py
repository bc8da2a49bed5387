"""How many bytes of logits may exist, and in how many rows they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsa_exec.core.hardware import MemoryReading
from dsa_exec.memory.logits_budget import logits_budget
from dsa_exec.memory.row_chunks import row_chunks, rows_per_chunk

GIB = 2**30
MANY = 141 * GIB

fractions = st.floats(min_value=1e-9, max_value=1.0)
sizes = st.integers(min_value=0, max_value=2**42)


def test_the_published_vector():
    """141 GiB, static 0.9, fraction 0.2, capturing: 3027951943 bytes; 8192 x 131072 in 2 chunks of 5775 rows."""
    budget = logits_budget(MemoryReading(MANY, 0), free_mem_fraction=0.2, mem_fraction_static=0.9, capturing=True)
    assert (budget.bytes, budget.static_bytes, budget.live_bytes) == (3027951943, 3027951943, None)
    rows = rows_per_chunk(8192, 131072 * 4, budget.bytes)
    assert (rows, len(list(row_chunks(8192, rows)))) == (5775, 2)


def test_the_largest_allocation_of_a_32_bit_kernel():
    """A cap of 2**31 - 1 bytes gives 4095 rows of 131072 keys."""
    budget = logits_budget(MemoryReading(MANY, MANY), free_mem_fraction=1.0, max_chunk_bytes=2**31 - 1)
    assert (budget.bytes, budget.cap_bytes) == (2**31 - 1, 2**31 - 1)
    assert rows_per_chunk(8192, 131072 * 4, budget.bytes) == 4095


@pytest.mark.parametrize(("total", "static", "gib"), [(141, 0.9, 2.82), (80, 0.9, 1.6), (178.35, 0.92, 2.85)])
def test_published_static_budgets(total, static, gib):
    """Static budgets of known machines at fraction 0.2."""
    reading = MemoryReading(int(total * GIB), int(total * GIB))
    budget = logits_budget(reading, free_mem_fraction=0.2, mem_fraction_static=static)
    assert budget.static_bytes / GIB == pytest.approx(gib, abs=0.005)


def test_the_share_outside_static_pools_is_whole_bytes():
    """1005 bytes, a static share of 0.9: 100 bytes are left of 100.5, and 0.9951 of those is 99."""
    budget = logits_budget(MemoryReading(1005, 1005), free_mem_fraction=0.9951, mem_fraction_static=0.9)
    assert budget.static_bytes == 99


def test_each_limit_can_be_the_least():
    """Total memory without a static fraction, free memory, and the absolute cap each decide when they are least."""
    total = 1000
    assert logits_budget(MemoryReading(total, total), free_mem_fraction=0.5).bytes == 300
    assert logits_budget(MemoryReading(total, 100), free_mem_fraction=0.5).bytes == 50
    assert logits_budget(MemoryReading(total, 60, 40), free_mem_fraction=0.5).bytes == 50
    assert logits_budget(MemoryReading(total, 100), free_mem_fraction=0.5, max_chunk_bytes=7).bytes == 7
    assert logits_budget(MemoryReading(total, 0), free_mem_fraction=0.5).bytes == 1
    assert logits_budget(MemoryReading(total, total), free_mem_fraction=0.5, mem_fraction_static=1.0).bytes == 1


def test_a_capture_does_not_depend_on_free_memory():
    """What is captured must be the same whatever is free at the moment."""
    little, much = (
        logits_budget(MemoryReading(1000, free), free_mem_fraction=0.2, mem_fraction_static=0.5, capturing=True)
        for free in (1, 1000)
    )
    assert little == much
    assert little.bytes == 100


@given(total=sizes, free=sizes, reusable=sizes, f=fractions, static=st.none() | st.floats(0, 1), cap=sizes)
def test_a_budget_is_positive_and_never_above_a_limit(total, free, reusable, f, static, cap):
    """At least one byte; at most 30 % of the device, the share of free memory, the cap; less memory, no more."""
    budget = logits_budget(
        MemoryReading(total, free, reusable), free_mem_fraction=f, mem_fraction_static=static, max_chunk_bytes=cap
    )
    assert budget.bytes >= 1
    assert budget.bytes <= max(1, int(0.3 * total))
    assert budget.bytes <= max(1, int((free + reusable) * f))
    assert cap == 0 or budget.bytes <= cap
    less = logits_budget(
        MemoryReading(total, free // 2, reusable), free_mem_fraction=f, mem_fraction_static=static, max_chunk_bytes=cap
    )
    assert less.bytes <= budget.bytes


@given(rows=st.integers(0, 5000), row_bytes=st.integers(0, 10**6), budget=st.integers(1, 10**9))
def test_chunks_cover_all_rows_in_order_within_the_budget(rows, row_bytes, budget):
    """Every row once, in order; each chunk within the budget unless it is a single row."""
    at_once = rows_per_chunk(rows, row_bytes, budget)
    parts = list(row_chunks(rows, at_once))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
    assert all(at_once == 1 or (part.stop - part.start) * row_bytes <= budget for part in parts)
