"""Candidates of each part, merged, are what one rank with all keys selects: to the bit, ties included."""

from __future__ import annotations

import pytest
import torch
from key_parts import cached, in_part, keys_of, queries

from dsa_config import settings
from dsa_exec.core.errors import ArgumentError, UnsupportedCall
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.key_split import KeyPart, KeySplit
from dsa_exec.layouts.views import SlotMap
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys, index_select
from dsa_exec.ops.index_select.candidates import index_candidates
from dsa_exec.ops.topk_candidates import topk_candidates
from dsa_exec.ops.topk_merge import topk_merge

K = 24
LENS = (90, 31, 8)


def splits(lens):
    return [
        KeySplit(2, 1),
        KeySplit(3, 8),
        KeySplit(2, 45),
        KeySplit(1, 16),
        KeySplit(7, 16),
        KeySplit.contiguous(2, torch.tensor(lens, dtype=torch.int32)),
        KeySplit.contiguous(4, torch.tensor(lens, dtype=torch.int32)),
    ]


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("nth", range(7))
def test_a_prefill(nth, tied):
    """Gathered keys of three requests; rows see all that came before them, and are taken in chunks of unequal size."""
    split = splits(LENS)[nth]
    keys, scales = keys_of(LENS, tied=tied)
    request = torch.tensor([number for number, length in enumerate(LENS) for _ in range(length)])
    seen = torch.cat([torch.arange(1, it + 1) for it in LENS]).int()
    first = torch.tensor([0, *LENS]).cumsum(0)[request].int()
    q, weights = queries(sum(LENS))
    whole = index_select(q, weights, GatheredKeys(keys, scales, first, first + seen), K).indices
    by_row = KeySplit(split.parts, split.block if isinstance(split.block, int) else split.block[request])
    told = []
    for part in range(split.parts):
        mine = in_part(split, part, LENS)
        counts = split.count_in(torch.tensor(LENS, dtype=torch.int32), part)
        assert int(counts.sum()) == int(mine.sum())
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0).int()])[request]
        ends = starts + by_row.count_in(seen, part)
        local = GatheredKeys(keys.view(torch.uint8)[mine].view(E4M3), scales[mine], starts, ends)
        # Ranks have other budgets, and so other chunks.
        memory = MemoryReading(10**6, (1 + part) * 1000)
        selection = index_candidates(q, weights, local, K, KeyPart(by_row, part), memory=memory)
        assert selection.chunks > 1
        told.append(selection.indices)
    merged = topk_merge(torch.stack(told), K)
    assert merged.picked.equal(whole)
    check_that_parts_keep_theirs(torch.stack(told), by_row, whole, merged.bounds)


def check_that_parts_keep_theirs(told, split, whole, bounds):
    """What each part keeps of its own, with all candidates at hand or with bounds alone, are the whole between them."""
    for part in range(split.parts):
        mine = KeyPart(split, part)
        own = topk_merge(told, K, keep=mine).picked
        assert own.equal(topk_merge(told[part : part + 1], K, keep=mine, bounds=bounds).picked)
        wanted = whole.where((whole >= 0) & (split.part_of(whole.clamp(min=0)) == part), -1)
        back = split.to_global(own, part)
        assert back.sort(dim=1).values.equal(wanted.long().sort(dim=1).values)


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("block", [16, 1, 64])
def test_a_decode(rows, block, tied):
    """Keys in the caches of two ranks; own slots are where the selected positions were stored."""
    lens = (150, 70)
    split = KeySplit(2, block)
    keys, scales = keys_of(lens, tied=tied)
    seen = torch.tensor([[it - rows + 1 + row for row in range(rows)] for it in lens], dtype=torch.int32)
    q, weights = queries(len(lens) * rows)
    q = q.unflatten(0, (len(lens), rows))
    whole_keys, whole_table = cached(keys, scales, lens)
    whole = index_select(q, weights, PagedKeys(whole_keys, whole_table, seen), K).indices
    told, tables = [], []
    for part in range(2):
        mine = in_part(split, part, lens)
        counts = split.count_in(torch.tensor(lens, dtype=torch.int32), part).tolist()
        cache, table = cached(keys.view(torch.uint8)[mine].view(E4M3), scales[mine], counts)
        local = PagedKeys(cache, table, split.count_in(seen, part))
        told.append(index_candidates(q, weights, local, K, KeyPart(split, part)).indices)
        tables.append((cache, table))
    told = torch.stack(told)
    assert SlotMap(whole_table, 16, None, 2**31, rows).slots(topk_merge(told, K).picked).equal(whole.long())
    for part, (cache, table) in enumerate(tables):
        slot_map = SlotMap(table, 16, None, cache.slots, rows)
        own = topk_merge(told, K, keep=KeyPart(split, part)).picked
        slots = topk_merge(told, K, keep=KeyPart(split, part), slot_map=slot_map).picked
        assert slots.equal(slot_map.slots(own).int())


@pytest.mark.parametrize(("finds", "applies"), [("triton", "torch"), ("torch", "triton")])
def test_bounds_that_one_backend_found_another_applies(finds, applies):
    """Ranks may run on other kernels: whatever separates the kept for one does for the other, ties included."""
    pytest.importorskip("triton")
    split = KeySplit(3, 4)
    keys, scales = keys_of((60,), tied=True)
    q, weights = queries(5)
    told = []
    for part in range(3):
        mine = in_part(split, part, (60,))
        ends = split.count_in(torch.tensor([60, 59, 31, 24, 7]), part)
        local = GatheredKeys(keys.view(torch.uint8)[mine].view(E4M3), scales[mine], ends * 0, ends)
        told.append(index_candidates(q, weights, local, K, KeyPart(split, part)).indices)
    told = torch.stack(told)
    with settings.override(topk_merge_backend=finds):
        found = topk_merge(told, K)
    for part in range(3):
        mine = KeyPart(split, part)
        with settings.override(topk_merge_backend=finds):
            wanted = topk_merge(told, K, keep=mine)
        with settings.override(topk_merge_backend=applies):
            kept = topk_merge(told[part : part + 1], K, keep=mine, bounds=found.bounds)
        assert kept.picked.equal(wanted.picked)
        assert kept.counts.equal(wanted.counts)


def test_rows_of_requests_have_the_blocks_of_their_rows():
    """Lengths [b, n] of paged keys, with a block for each of the b * n rows."""
    lens = torch.tensor([[5, 6, 7], [9, 10, 11]], dtype=torch.int32)
    split = KeySplit(2, torch.tensor([2, 2, 2, 3, 3, 3], dtype=torch.int32))
    assert split.count_in(lens, 0).tolist() == [[3, 4, 4], [6, 6, 6]]
    assert (split.count_in(lens, 0) + split.count_in(lens, 1)).equal(lens)


def test_blocks_that_lie_apart_are_refused():
    """A kernel would read those between."""
    logits, picked = torch.zeros(3, 9), torch.zeros(3, 2, dtype=torch.int32)
    part = KeyPart(KeySplit(2, torch.ones(6, dtype=torch.int32)[::2]), 0)
    with pytest.raises(ArgumentError, match=r"part.split.block has strides \[2\]"):
        topk_candidates(logits, picked, part)


def test_no_row():
    """A rank that has no row tells no candidates, in the usual shape."""
    keys, scales = keys_of((4,), tied=False)
    none = torch.zeros(0, dtype=torch.int32)
    part = KeyPart(KeySplit(2, 1), 0)
    told = index_candidates(*queries(0), GatheredKeys(keys, scales, none, none), K, part).indices
    assert told.shape == (0, 2, K)


def test_a_backend_that_keeps_no_scores_says_so():
    """Candidates have scores; a backend of `index_select` that gives none refuses, by its name."""
    keys, scales = keys_of((4,), tied=False)
    bounds = torch.tensor([0], dtype=torch.int32), torch.tensor([4], dtype=torch.int32)
    part = KeyPart(KeySplit(2, 1), 0)
    with settings.override(index_select_backend="triton"), pytest.raises(UnsupportedCall, match="triton: "):
        index_candidates(*queries(1), GatheredKeys(keys, scales, *bounds), K, part)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: KeySplit(0, 1), "KeySplit: parts is 0; wanted an integer from 1 to 1024"),
        (lambda: KeySplit(torch.ones(3, dtype=torch.int32), 1), "KeySplit: parts is tensor("),
        (lambda: KeySplit.contiguous(0, 5), "KeySplit: parts is 0; wanted an integer from 1 to 1024"),
        (lambda: KeySplit(2, 0), "KeySplit: block is 0; wanted an integer from 1 to 2147483647"),
        (lambda: KeySplit(2, torch.ones(2)), "block is float32 [2]; wanted an integer, or int32 [t]"),
        (lambda: KeyPart(KeySplit(2, 1), 2), "KeyPart: part is 2; wanted an integer from 0 to 1, of 2 parts"),
    ],
)
def test_a_split_that_is_none(made, sentence):
    """A split or part that cannot be is refused when it is made, with what it was and what it may be."""
    with pytest.raises(ArgumentError) as raised:
        made()
    assert sentence in str(raised.value)


def told_of(parts, rows=1):
    return torch.full((parts, rows, 2, 3), -1, dtype=torch.int32)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"keep": KeyPart(KeySplit(3, 1), 0)}, "candidates has 2 parts; wanted 3, by keep.split"),
        (
            {"keep": KeyPart(KeySplit(2, 1), 0), "bounds": torch.zeros(1, 2, dtype=torch.int32)},
            "candidates has 2 parts; wanted 1, by bounds",
        ),
        ({"slot_map": SlotMap(torch.zeros(1, 1, dtype=torch.int32), 16, None)}, "slot_map is given without `keep`"),
        ({"bounds": torch.zeros(2, 2, dtype=torch.int32)}, "bounds has shape [2, 2]"),
        (
            {"keep": KeyPart(KeySplit(2, torch.ones(4, dtype=torch.int32)), 0)},
            "keep.split.block has 4 rows; wanted 1",
        ),
        ({"k": 0}, "k is 0"),
    ],
)
def test_arguments_that_do_not_go_together(given, sentence):
    """`topk_merge` refuses them, and names the one that is wrong."""
    with pytest.raises(ArgumentError) as raised:
        topk_merge(told_of(2), given.pop("k", 3), **given)
    assert sentence in str(raised.value)
