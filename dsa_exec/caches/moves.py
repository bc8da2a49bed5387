"""Moves of what caches hold: tokens from slot to slot, and whole pages to the host and back.

A token of an index-K cache is in two places of its page, the key among the keys and the scale among the scales, so that
it cannot be moved as one run of bytes; a page can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.checks import INDEX_DTYPES, Arguments
from dsa_exec.core.errors import DtypeError, LayoutError, ShapeError
from dsa_exec.core.masked_writes import MaskedWrites
from dsa_exec.layouts.index_k import TILE, IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.views import index_key_view, index_scale_view

Cache = IndexKCache | MlaCache
_Places = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


@dataclass(frozen=True, slots=True)
class HostPages:
    """Pages of a cache on the host, in the order in which they were asked for.

    Attributes:
        data: [n, ...] on the CPU, pages as the cache has them.
        layout: what the bytes mean.
    """

    data: torch.Tensor
    layout: IndexKLayout | MlaLayout


def move_tokens(cache: Cache, from_slots: torch.Tensor, to_slots: torch.Tensor) -> None:
    """Copy tokens to other slots, as they are stored: nothing is quantised again.

    All are read before any is written, so that the two sets may overlap. The device is not waited for.

    Args:
        cache: written in place.
        from_slots: int [n], in any order; -1 moves nothing.
        to_slots: int [n], in any order; -1 moves nothing. No slot twice: which token would stay is not defined.

    Raises:
        ArgumentError: a shape, dtype or device that is not as above; on the CPU, and elsewhere under
            `debug_check_indices`, a slot that the cache does not have. Unchecked, such a slot moves nothing.
    """
    args = _arguments("move_tokens", cache)
    for slots, name in ((from_slots, "from_slots"), (to_slots, "to_slots")):
        args.tensor(slots, name, "n", dtype=INDEX_DTYPES, any_stride=True)
        args.values(slots, name, low=-1, high=cache.slots - 1, on_accelerators=settings.debug_check_indices)
    if from_slots.shape[0] == 0:
        return
    source, target = from_slots.long(), to_slots.long()
    is_known = (source >= 0) & (source < cache.slots)
    writes = MaskedWrites.to(target.where(is_known, -1), cache.slots)
    source = source.where(is_known, 0)
    # Each part is read whole, into memory of its own, before it is written; parts do not share memory.
    for view, places in _parts(cache):
        writes.write(view, places(writes.slots), view[places(source)])


def pages_to_host(cache: Cache, pages: torch.Tensor) -> HostPages:
    """Copies of whole pages on the host. Waits for the device.

    Args:
        cache: where they are.
        pages: int [n], numbers of pages (a slot's page is `slot // page_tokens`), in any order.

    Raises:
        ArgumentError: a shape, dtype or device that is not as above, or a page that the cache does not have.
    """
    by_page = _by_page(cache)
    _check_pages("pages_to_host", cache, pages, by_page.shape[0])
    return HostPages(by_page.detach()[pages.long()].cpu(), cache.layout)


def pages_from_host(cache: Cache, host: HostPages, pages: torch.Tensor) -> None:
    """Write pages from the host into a cache, which may be another one than they came from. Waits for the device.

    Args:
        cache: written in place.
        host: what `pages_to_host` gave.
        pages: int [n], where each page goes, in any order. No page twice: which would stay is not defined.

    Raises:
        ArgumentError: a shape, dtype or device that is not as above, a page that the cache does not have, or another
            number of pages than the host has.
        LayoutError: the host's pages are laid out in another way than the cache's.
    """
    by_page = _by_page(cache)
    args = _check_pages("pages_from_host", cache, pages, by_page.shape[0])
    args.kind(host, "host", HostPages)
    if host.layout != cache.layout or host.data.dtype != cache.data.dtype:
        raise LayoutError("pages from the host", "layout", f"{host.layout} of {host.data.dtype}", f"{cache.layout}")
    if host.data.shape[0] != pages.shape[0]:
        wanted = f"[{host.data.shape[0]}], a page for each that the host has"
        raise ShapeError("pages_from_host", "pages", f"has shape {list(pages.shape)}", wanted)
    by_page[pages.long()] = host.data.to(by_page.device)


def _parts(cache: Cache) -> Iterator[tuple[torch.Tensor, _Places]]:
    """Each part of a cache in which a token has a place, and the index of some slots in it."""
    layout = cache.layout
    if isinstance(layout, MlaLayout):
        yield cache.data, lambda slots: (slots,)
        return

    def plain(slots: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return slots // layout.page_tokens, slots % layout.page_tokens

    def tiled(slots: torch.Tensor) -> tuple[torch.Tensor, ...]:
        page, token = plain(slots)
        return page, token // TILE, token % TILE

    if layout.format == "model":
        yield cache.data, plain
        return
    # As bytes: not every device can index e4m3.
    keys = index_key_view(cache.data, layout).view(cache.data.dtype)
    yield keys, plain if layout.order == "plain" else tiled
    yield index_scale_view(cache.data, layout), plain


def _by_page(cache: Cache) -> torch.Tensor:
    """A cache's tensor with pages in its first dimension."""
    if isinstance(cache, MlaCache):
        return cache.data.unflatten(0, (-1, cache.layout.page_tokens))
    return cache.data


def _arguments(what: str, cache: Cache) -> Arguments:
    args = Arguments(what)
    if not isinstance(cache, IndexKCache | MlaCache):
        raise DtypeError(what, "cache", f"is {type(cache).__name__}", "IndexKCache or MlaCache")
    args.device(cache.data, "cache")
    return args


def _check_pages(what: str, cache: Cache, pages: torch.Tensor, count: int) -> Arguments:
    args = _arguments(what, cache)
    args.tensor(pages, "pages", "n", dtype=INDEX_DTYPES, any_stride=True)
    args.values(pages, "pages", low=0, high=count - 1, on_accelerators=True)
    return args
