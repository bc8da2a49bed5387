"""How many rows a budget has room for, whatever a call allocates for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsa_exec.memory.chunk_plan import LEAST_ROUNDED_BYTES, WORKSPACE_BYTES, plan_chunks
from dsa_exec.memory.footprint import NOTHING, Footprint

sizes = st.integers(0, 2**30)
footprints = st.builds(
    Footprint,
    fixed_bytes=sizes,
    row_bytes=sizes,
    streamed=st.lists(st.tuples(sizes, st.integers(1, 10**4)), max_size=3).map(tuple),
    workspace_row_bytes=sizes,
    own_row_bytes=st.just(0),
    own_row_multiple=st.just(1),
)
of_libraries = st.builds(
    Footprint,
    fixed_bytes=sizes,
    row_bytes=sizes,
    streamed=st.just(()),
    workspace_row_bytes=st.just(0),
    own_row_bytes=sizes,
    own_row_multiple=st.integers(1, 8),
)
budgets = st.integers(1, 2**42)


@given(footprint=footprints, budget=budgets)
def test_the_most_rows_that_fit(footprint, budget):
    """No more than the budget, and one row more would be more; unless rows cost nothing."""
    rows = footprint.rows_within(budget)
    assert rows == 0 or footprint.bytes(rows) <= budget
    if rows < 10**12:
        assert footprint.bytes(rows + 1) > budget


@given(footprint=of_libraries, budget=budgets)
def test_a_library_is_given_multiples_of_its_rows(footprint, budget):
    """What it rounds up to is counted, and filled where there is room for it."""
    rows = footprint.rows_within(budget)
    assert rows == 0 or footprint.bytes(rows) <= budget
    multiple = footprint.own_row_multiple
    if multiple < rows < 10**12:
        assert rows % multiple == 0
        assert footprint.bytes(rows + multiple) > budget


@given(left=footprints, right=footprints, rows=st.integers(0, 10**5))
def test_footprints_add_up(left, right, rows):
    """Of two at once: what both take."""
    assert (left + right).bytes(rows) == left.bytes(rows) + right.bytes(rows)
    assert (left + NOTHING) == left


def test_a_footprint_in_numbers():
    """Fixed, for each row, some rows at a time, and rounded up to a library's rows."""
    footprint = Footprint(100, 10, ((7, 3),), own_row_bytes=1000, own_row_multiple=4)
    assert footprint.bytes(1) == 100 + 10 + 7 + 4000
    assert footprint.bytes(5) == 100 + 50 + 21 + 8000
    assert footprint.logits_row_bytes == 1000
    assert [footprint.rows_within(it) for it in (4116, 4117, 4134, 8171, 10**6)] == [0, 1, 2, 4, 988]


@given(
    units=st.integers(0, 10**4),
    unit_rows=st.integers(1, 8),
    footprint=st.one_of(footprints, of_libraries),
    budget=budgets,
    most=st.integers(1, 2**31),
)
def test_a_plan_keeps_to_the_budget_or_says_that_it_does_not(units, unit_rows, footprint, budget, most):
    """A chunk takes no more than the budget unless it is the smallest one; the workspace with the rest fits it too."""
    plan = plan_chunks(units, footprint, budget, unit_rows=unit_rows, most_logits_bytes=most)
    assert 1 <= plan.units_at_once <= max(units, 1)
    rows = plan.units_at_once * unit_rows
    assert plan.bytes == footprint.bytes(rows)
    assert plan.least_bytes == footprint.bytes(unit_rows)
    logits = footprint.workspace_row_bytes * rows
    assert plan.workspace_bytes >= logits
    if plan.units_at_once > 1:
        assert plan.bytes <= budget
        assert footprint.logits_row_bytes * rows <= most
        assert plan.workspace_bytes == logits or plan.bytes - logits + plan.workspace_bytes <= budget


@given(footprint=footprints, budget=budgets, more=sizes, units=st.integers(1, 10**4))
def test_more_memory_never_makes_smaller_chunks(footprint, budget, more, units):
    """With a larger budget a chunk has at least as many rows."""
    less, larger = (plan_chunks(units, footprint, it) for it in (budget, budget + more))
    assert larger.units_at_once >= less.units_at_once


def test_what_fits_is_done_at_once():
    """Up to the budget and to 512 MiB of logits a call is one chunk."""
    footprint = Footprint(workspace_row_bytes=2**19)
    assert plan_chunks(1024, footprint, 2**40).units_at_once == 1024
    assert plan_chunks(1025, footprint, 2**40).units_at_once == 1024
    assert plan_chunks(100, footprint, 100 * 2**19).units_at_once == 100
    assert plan_chunks(8192, footprint, 2**40, most_logits_bytes=2**32).units_at_once == 8192
    assert plan_chunks(8192, Footprint(workspace_row_bytes=655_360), 2**40).units_at_once == 2**29 // 655_360


def test_budgets_that_differ_a_little_have_chunks_of_one_size():
    """Where not all rows fit, their logits fill a power of two: free memory moves, and the workspace keeps its size."""
    footprint = Footprint(row_bytes=8192, workspace_row_bytes=2**19)
    plans = [plan_chunks(8192, footprint, budget) for budget in range(150 * 2**20, 250 * 2**20, 2**20)]
    assert {plan.units_at_once for plan in plans} == {256}
    small = [plan_chunks(10**4, Footprint(workspace_row_bytes=400), budget) for budget in (4000, 4400)]
    assert [plan.units_at_once for plan in small] == [10, 11]
    assert LEAST_ROUNDED_BYTES > 4400


def test_a_request_goes_with_all_its_rows():
    """Chunks of paged keys are whole requests, of `next_n` rows each."""
    footprint = Footprint(workspace_row_bytes=100)
    plan = plan_chunks(10, footprint, 999, unit_rows=4)
    assert (plan.units_at_once, plan.bytes, plan.least_bytes) == (2, 800, 400)
    assert plan_chunks(10, footprint, 399, unit_rows=4).units_at_once == 1


@pytest.mark.parametrize(
    ("budget", "rows"),
    [(3027951943, 5775), (2**31 - 1, 4095)],
    ids=["141 GiB, static 0.9, fraction 0.2", "what ROCm addresses"],
)
def test_published_rows_of_logits_alone(budget, rows):
    """5775 rows of 131072 logits, so that 8192 come in 2 chunks; 4095 where 2 GiB are the limit."""
    assert Footprint(workspace_row_bytes=131072 * 4).rows_within(budget) == rows
    assert -(-8192 // rows) == {5775: 2, 4095: 3}[rows]


def test_the_workspace_is_512_mib():
    """As documented; a fifth of 2.5 GiB of free memory."""
    assert WORKSPACE_BYTES == 512 * 2**20
