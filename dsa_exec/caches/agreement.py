"""Agreement between who made a cache's bytes and who reads them: a launcher and its workers, a process and its heir.

A layout's `spec` is the version of what the bytes mean. Whoever hands bytes on, hands it on with them.
"""

from __future__ import annotations

import dataclasses

import torch

from dsa_config import settings
from dsa_exec.caches.allocation import INDEX_K_SETTINGS, allocated
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.index_k_pages import PageDecision, decide_pages, pages_in_words
from dsa_exec.core.errors import LayoutError
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.layouts.index_k import IndexKLayout

_WHAT = "index-K cache from elsewhere"


def attach_index_k_cache(
    data: torch.Tensor,
    spec: str,
    *,
    model_dtype: torch.dtype,
    head_dim: int = 128,
    pow2_scale: bool = False,
    hadamard: bool = False,
) -> IndexKCache:
    """A cache whose memory was allocated, and may have been filled, elsewhere: by a launcher, or before a restart.

    Args:
        data: its memory, in this process.
        spec: `layout.spec` of the cache that the memory was allocated as.
        model_dtype: as this process would give it to `IndexKCache.allocate`; and so the others.
        head_dim: channels a key.
        pow2_scale: scales are rounded up to powers of two.
        hadamard: keys are rotated before they are quantised.

    Raises:
        LayoutError: this process, by its settings and its device, would have laid the cache out in another way: it
            would misread what is there, or others what it writes. Or the memory does not fit.
    """
    layout = IndexKLayout.of_spec(spec)
    if settings.index_k_format == "model":
        own = IndexKLayout("model", layout.page_tokens, head_dim, element_bytes=model_dtype.itemsize)
    else:
        # Pages are compared below, with reasons. Whether keys hold -0 is the maker's choice: who writes follows it.
        pages, zeros = (layout.page_tokens, head_dim, layout.order), layout.unsigned_zero
        own = IndexKLayout("fp8", *pages, pow2_scale=pow2_scale, hadamard=hadamard, unsigned_zero=zeros)
    require_format(spec, own)
    made = PageDecision(layout.page_tokens, layout.order, "made elsewhere, and decided alike here")
    cache = IndexKCache(data, layout, made)
    require_agreement(cache)
    allocation = allocated(f"an index-K cache of {cache.slots} slots was attached", INDEX_K_SETTINGS)
    return dataclasses.replace(cache, allocation=allocation)


def require_format(spec: str, layout: IndexKLayout) -> None:
    """Check that the bytes of an index-K cache mean what this process takes them for.

    Args:
        spec: `layout.spec` of the cache that the bytes are from: of another process, a host, a file.
        layout: what this process takes them for.

    Raises:
        LayoutError: they mean something else; every difference is named.
    """
    theirs = IndexKLayout.of_spec(spec)
    names = [field.name for field in dataclasses.fields(layout)]
    pairs = [(name, getattr(theirs, name), getattr(layout, name)) for name in names]
    differences = [(name, there, here) for name, there, here in pairs if there != here]
    if differences:
        found = ", ".join(f"{name}={there!r}" for name, there, _ in differences)
        wanted = ", ".join(f"{name}={here!r}" for name, _, here in differences)
        raise LayoutError(_WHAT, "format", f"{spec}, with {found}", f"{wanted} ({layout.spec})")


def require_agreement(cache: IndexKCache, hw: Capabilities | None = None) -> None:
    """Check that this process would have decided on the pages that a cache has.

    For whoever attaches to a cache that another process has made: that one decided by its own settings.

    Args:
        cache: the cache.
        hw: its device; asked for if not given.

    Raises:
        LayoutError: it would not, and why.
    """
    hw = capabilities(cache.data.device) if hw is None else hw
    layout = cache.layout
    if layout.format == "model" or hw.device_type != "cuda":  # any pages will do
        return
    decided = decide_pages(layout.format, hw)
    if (layout.page_tokens, layout.order) != (decided.page_tokens, decided.order):
        came = pages_in_words(layout.page_tokens, layout.order)
        raise LayoutError(_WHAT, "page layout", came, f"{decided}{_where_it_differs(decided)}")


def _where_it_differs(decided: PageDecision) -> str:
    """Where the value of the setting that decided came from, so that the two processes can be compared."""
    if decided.failed is None or decided.failed.setting is None:
        return ""
    name = decided.failed.setting
    return f". Here {name} is from {settings.explain(name).origin}; where the cache was made it may be another"
