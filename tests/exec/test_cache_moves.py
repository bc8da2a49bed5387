"""Moves of tokens between slots, and of pages to the host and back: bits arrive where they should, as they were."""

from __future__ import annotations

import pytest
import torch
from live_tensors import Watch

from dsa_config import settings
from dsa_exec import IndexKCache, MlaCache
from dsa_exec.caches.moves import HostPages, move_tokens, pages_from_host, pages_to_host
from dsa_exec.caches.samples import random_index_k_cache, random_mla_cache
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import ArgumentError, DtypeError, LayoutError, RangeError, ShapeError
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.views import read_index_keys

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYOUTS = [
    IndexKLayout(page_tokens=32),
    IndexKLayout(page_tokens=1),
    IndexKLayout(page_tokens=32, order="preshuffled"),
    IndexKLayout("model", page_tokens=32, element_bytes=4),
    MlaLayout(page_tokens=32),
    MlaLayout("model", page_tokens=32, latent_dim=32, rope_dim=16, element_bytes=4),
]
SLOTS = 96


def cache_of(layout) -> IndexKCache | MlaCache:
    fill = random_mla_cache if isinstance(layout, MlaLayout) else random_index_k_cache
    return fill(torch.Generator().manual_seed(4), layout, SLOTS // layout.page_tokens, DEVICE)


def ints(*numbers: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype, device=DEVICE)


def tokens(cache: IndexKCache | MlaCache) -> list[tuple[int, ...]]:
    """Of each slot the bytes of its token, wherever in its page they are."""
    if isinstance(cache, MlaCache):
        parts = [cache.data]
    else:
        parts = [part for part in read_index_keys(cache.data, cache.layout, ints(*range(SLOTS))) if part is not None]
    rows = [part.reshape(SLOTS, -1).contiguous().view(torch.uint8) for part in parts]
    return [tuple(row) for row in torch.cat(rows, dim=1).tolist()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((3, 70, 31), (64, 5, 32)),  # between pages, unordered
        ((0, 1, 2, 3, 4), (1, 2, 3, 4, 5)),  # overlapping, forwards
        ((5, 4, 3, 2), (4, 3, 2, 1)),  # and backwards
        ((10, 40), (40, 10)),  # a swap
        ((7, 7, 7), (8, 60, 95)),  # one to many
        ((9,), (9,)),
        ((), ()),
    ],
)
def test_t28_tokens_move_one_by_one(layout, source, target):
    """T28: each target holds what its source held before the move, scales included; every other slot is as it was."""
    cache = cache_of(layout)
    before = tokens(cache)
    move_tokens(cache, ints(*source), ints(*target, dtype=torch.int32))
    wanted = list(before)
    for one, other in zip(source, target, strict=True):
        wanted[other] = before[one]
    assert tokens(cache) == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_t28_a_move_without_a_slot_moves_nothing(layout, monkeypatch):
    """T28: -1 on either side, and unchecked what the cache does not have, leave the cache as it was; nothing waits."""
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    cache = cache_of(layout)
    before = tokens(cache)
    with Watch() as watch:
        move_tokens(cache, ints(-1, 3, 2**40, 1, 20), ints(4, -1, 6, SLOTS, 21))
    wanted = list(before)
    wanted[21] = before[20]
    assert tokens(cache) == wanted
    assert {"aten.nonzero", "aten.item", "aten._local_scalar_dense", "aten.is_nonzero"}.isdisjoint(watch.calls)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_t28_pages_go_to_the_host_and_back_in_any_order(layout):
    """T28: unordered pages come back to where they were, or to other pages of another cache, whole."""
    cache, other = cache_of(layout), cache_of(layout)
    original, before = cache.data.clone(), tokens(cache)
    host = pages_to_host(cache, ints(2, 0))
    assert host.data.device.type == "cpu"
    cache.data.zero_()
    pages_from_host(cache, host, ints(2, 0))
    middle = slice(layout.page_tokens, 2 * layout.page_tokens)
    kept = list(range(layout.page_tokens)) + list(range(2 * layout.page_tokens, 3 * layout.page_tokens))
    assert [tokens(cache)[slot] for slot in kept] == [before[slot] for slot in kept]
    assert not any(map(any, tokens(cache)[middle]))
    cache.data.copy_(original)
    pages_from_host(other, pages_to_host(cache, ints(0, 2, dtype=torch.int32)), ints(1, 0, dtype=torch.int32))
    size = layout.page_tokens
    assert tokens(other)[size : 2 * size] == before[:size]
    assert tokens(other)[:size] == before[2 * size : 3 * size]
    assert tokens(other)[2 * size :] == before[2 * size :]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_t28_a_copy_on_the_host_stays_as_it_was(layout):
    """T28: it shares no memory with the cache, and the same page can be copied twice, or none."""
    cache = cache_of(layout)
    host = pages_to_host(cache, ints(1, 1))
    cache.data.zero_()
    assert host.data.any()
    assert torch.equal(host.data[0], host.data[1])
    assert pages_to_host(cache, ints()).data.shape[0] == 0
    pages_from_host(cache, pages_to_host(cache, ints()), ints())
    assert not cache.data.any()


@pytest.mark.parametrize(
    ("error", "words", "act"),
    [
        (RangeError, r"move_tokens: from_slots holds 96 at \[1\]", lambda it: move_tokens(it, ints(0, 96), ints(1, 2))),
        (RangeError, r"move_tokens: to_slots holds -2 at \[0\]", lambda it: move_tokens(it, ints(0), ints(-2))),
        (ShapeError, "move_tokens: to_slots has shape", lambda it: move_tokens(it, ints(0, 1), ints(1))),
        (DtypeError, "move_tokens: from_slots is float32", lambda it: move_tokens(it, torch.zeros(1), ints(1))),
        (DtypeError, "move_tokens: cache is Tensor", lambda it: move_tokens(it.data, ints(0), ints(1))),
        (RangeError, "pages_to_host: pages holds 3", lambda it: pages_to_host(it, ints(0, 3))),
        (RangeError, "pages_to_host: pages holds -1", lambda it: pages_to_host(it, ints(-1))),
        (
            RangeError,
            "pages_from_host: pages holds 3",
            lambda it: pages_from_host(it, pages_to_host(it, ints(0)), ints(3)),
        ),
        (
            ShapeError,
            r"pages_from_host: pages has shape \[2\]; wanted \[1\]",
            lambda it: pages_from_host(it, pages_to_host(it, ints(0)), ints(0, 1)),
        ),
        (DtypeError, "pages_from_host: host is Tensor", lambda it: pages_from_host(it, it.data.cpu(), ints(0))),
    ],
)
@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[4]])
def test_what_cannot_be_moved_is_an_error(layout, error, words, act):
    """The error names the argument, what came and what is wanted."""
    cache = cache_of(layout)
    with settings.override(debug_check_indices=True), pytest.raises(error, match=f"^{words}"):
        act(cache)
    assert issubclass(error, ArgumentError)


def test_pages_of_another_layout_are_refused():
    """Preshuffled pages have the size of plain ones; they must not be taken for them."""
    plain, preshuffled = cache_of(LAYOUTS[0]), cache_of(LAYOUTS[2])
    with pytest.raises(LayoutError, match="pages from the host: layout is .*preshuffled.*; wanted .*plain"):
        pages_from_host(plain, pages_to_host(preshuffled, ints(0)), ints(0))
    model = cache_of(LAYOUTS[3])
    with pytest.raises(LayoutError, match="of torch.int32"):
        pages_from_host(model, HostPages(model.data[:1].cpu().view(torch.int32), model.layout), ints(0))
