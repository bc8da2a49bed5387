"""The requests of a cache: the pages of each, and how many tokens they have. One object for the caches of all layers.

A cache of fixed size keeps its tensors where they are, and counts its tokens on the device too, so that steps of one
token can be compiled and replayed. A growing one adds pages when a pass needs them.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch

from dsa_exec.core.errors import RangeError
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.integrations.transformers.cache_refusals import NO_PAGES, OVERFLOW, UNFINISHED
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.growth import pages_with_reserve
from dsa_exec.integrations.transformers.model_shape import ModelShape
from dsa_exec.integrations.transformers.pool_of_requests import Pool, index_page_table
from dsa_exec.integrations.transformers.static_address import hold_address
from dsa_exec.integrations.transformers.step import PAGE_TOKENS, Step, make_step
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.paging import pages_for


class PagedRequests:
    """Pages and lengths of the requests, for all layers.

    Attributes:
        index_topk: how many tokens the model selects for a row.
        max_tokens: room for each request; None: it grows.
        pools: the caches of the layers that have been allocated.
        hw: the device, as it was when the page table was made.
        made_for: the model that they are for; None: nobody asks.
        pads: int32 [b], tokens of padding before each request's first, where the page table is.
    """

    def __init__(self, index_topk: int, *, max_tokens: int | None = None, made_for: ModelShape | None = None) -> None:
        self.index_topk = index_topk
        self.made_for = made_for
        self.max_tokens = max_tokens
        self.pools: list[Pool] = []
        self.hw: Capabilities | None = None
        self._table: torch.Tensor | None = None
        self._index_table: torch.Tensor | None = None
        self._seen: int | None = 0  # None: only the device knows
        self._length: torch.Tensor | None = None
        self.pads = torch.zeros(0, dtype=torch.int32)
        self._pass_is_open = False
        self._windows: weakref.ref[torch.Tensor] | None = None
        self._step: Step | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy has passes of its own, and asks for the device itself.
        return {**vars(self), "_windows": None, "_step": None, "hw": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._table is not None:
            self.hw = capabilities(self._table.device)

    @property
    def is_fixed(self) -> bool:
        """Whether its size never changes."""
        return self.max_tokens is not None

    @property
    def page_table(self) -> torch.Tensor:
        """int32 [b, pages], the pages of each request in order, on the device of the first layer.

        Raises:
            NotSupported: there are no requests yet.
        """
        if self._table is None:
            raise NotSupported(NO_PAGES)
        return self._table

    @page_table.setter
    def page_table(self, table: torch.Tensor) -> None:
        self._table, self._index_table, self._step = table, None, None
        if self.is_fixed:
            hold_address(table)

    @property
    def index_page_table(self) -> torch.Tensor:
        """int32 [b, pages], the same slots as in `page_table`, under the pages of the index-K caches.

        Raises:
            NotSupported: there are no requests yet, or layers have index-K pages of several sizes, or pages that do not
                divide the MLA caches'.
        """
        if self._index_table is None:
            self._index_table = index_page_table(self.pools, self.page_table)
            if self.is_fixed:
                hold_address(self._index_table)
        return self._index_table

    @property
    def batch_size(self) -> int:
        """How many requests there are; 0 before the first pass of a growing cache."""
        return 0 if self._table is None else self._table.shape[0]

    @property
    def slots(self) -> int:
        """How many slots the pages of all requests have."""
        return self.page_table.numel() * PAGE_TOKENS

    @property
    def page_capacity(self) -> int:
        """Tokens of a request that its pages could hold."""
        return self.page_table.shape[1] * PAGE_TOKENS

    def seen_tokens(self) -> int | torch.Tensor:
        """Tokens of a request so far, padding included: a tensor in a graph and after it, where the host did not count.

        Asks nothing of the device.
        """
        if self._length is not None and (torch.compiler.is_compiling() or self._seen is None):
            return self._length
        assert self._seen is not None
        return self._seen

    def known_tokens(self) -> int:
        """The same as a number, for which the device is waited for after a compiled step."""
        if self._seen is None:
            assert self._length is not None
            self._seen = int(self._length)
        return self._seen

    def add(self, pool: Pool) -> None:
        """Take up a layer's caches, which have been allocated."""
        self.pools.append(pool)
        if pool.index_page_tokens is not None:
            self._index_table = None

    def make_room(self, batch: int, new_tokens: int, device: torch.device) -> None:
        """See to it that a pass has room, before it writes anything.

        Args:
            batch: requests of the pass.
            new_tokens: tokens that each request gets.
            device: of the first layer.

        Raises:
            RangeError: another number of requests, or more tokens than there is room for.
            NotSupported: the pass before this one broke off.
        """
        if new_tokens == 0:
            raise RangeError("transformers", "input_ids", "holds no token", "at least one new token a request")
        if self._pass_is_open:
            raise NotSupported(UNFINISHED)
        seen = self.known_tokens()
        wanted = seen + new_tokens
        if self.max_tokens is not None and self._table is None:
            self.open(batch, device)
        is_other_batch = batch != self.batch_size and (self.is_fixed or seen > 0)
        if is_other_batch or wanted > (self.max_tokens or wanted):
            room = "" if self.max_tokens is None else f" and max_tokens={self.max_tokens}"
            came = f"was made for batch_size={self.batch_size}{room}"
            raise RangeError("transformers", "past_key_values", came, f"room for {batch} requests of {wanted} tokens")
        if self.is_fixed:
            return
        if batch != self.batch_size:
            self.open(batch, device, wanted)
        elif wanted > self.page_capacity:
            self._grow(pages_with_reserve(wanted))

    def open(self, batch: int, device: torch.device, tokens: int | None = None) -> None:
        """Give requests their pages, one after the other.

        Args:
            batch: how many requests.
            device: of the page table.
            tokens: what a growing cache has to hold at once.
        """
        self.hw = capabilities(device)
        pages = pages_with_reserve(tokens or 1) if self.max_tokens is None else pages_for(self.max_tokens, PAGE_TOKENS)
        with torch.inference_mode(mode=False):  # what is made under it could not be written to outside of it
            self.page_table = torch.arange(batch * pages, dtype=torch.int32, device=device).reshape(batch, pages)
            self.pads = torch.zeros(batch, dtype=torch.int32, device=device)
            if self.is_fixed:
                self._length = hold_address(torch.zeros((), dtype=torch.int64, device=device))
                hold_address(self.pads)
        for pool in self.pools:
            pool.hold(self.slots)

    def is_step_of(self, windows: torch.Tensor) -> bool:
        """Whether the step that was made last is that of the pass with these windows."""
        return self._step is not None and self._windows is not None and self._windows() is windows

    def step(self, windows: torch.Tensor, layout: MlaLayout) -> Step:
        """What this pass's rows do, worked out once for layers that get the same windows.

        Raises:
            NotSupported: the pass says of its padding other than those before.
            UnsupportedPath: a setting names a way of attending that the pass cannot take.
        """
        if not self.is_step_of(windows):
            table, pads = (it.to(windows.device) for it in (self.page_table, self.pads))
            hw = capabilities(windows.device)
            self._step = make_step(table, pads, windows, layout, hw, self.index_topk, self._most())
            self._windows = weakref.ref(windows)
            self._pass_is_open = True
        assert self._step is not None
        return self._step

    def traced_step(self, windows: torch.Tensor, layout: MlaLayout) -> Step:
        """The same in a graph: nothing is kept, and equal parts of the graph are done once by the compiler."""
        assert self.hw is not None
        assert self.max_tokens is not None
        most = min(self.max_tokens, self.page_capacity)
        return make_step(self.page_table, self.pads, windows, layout, self.hw, self.index_topk, most)

    def advance(self, new_tokens: int, pads: torch.Tensor) -> None:
        """Count the tokens of a pass, after its last layer, and remember its padding: int32 [b], on any device."""
        self._remember(pads)
        if self._length is not None:
            self._length.add_(new_tokens)
        if torch.compiler.is_compiling():
            assert self._length is not None
            assert self.max_tokens is not None
            torch._assert_async(self._length <= self.max_tokens, OVERFLOW)
            self._seen = None
            return
        assert self._seen is not None
        self._seen += new_tokens
        self._pass_is_open = False
        _ = self.index_page_table  # so that a graph finds it made

    def reset(self) -> None:
        """Forget every token."""
        self._set_seen(0)
        for pool in self.pools:
            pool.forget()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens.

        Args:
            tokens_to_remove: how many, as a negative number; a positive one says how many stay, as it once did.
        """
        seen = self.known_tokens()
        stay = tokens_to_remove if tokens_to_remove > 0 else seen + tokens_to_remove
        self._set_seen(max(0, min(seen, stay)))

    def choose(self, requests: torch.Tensor) -> None:
        """Have these requests, some of them several times, in the place of those that there are.

        Args:
            requests: int [n], which; at least one.

        Raises:
            NotSupported: a cache of fixed size would have another number of them.
        """
        if self._table is None or self.known_tokens() == 0:
            return
        old, used = self.page_table, pages_for(self.known_tokens(), PAGE_TOKENS)
        if len(requests) != self.batch_size:
            if self.is_fixed:
                raise NotSupported(
                    f"a cache of fixed size keeps its {self.batch_size} requests, and {len(requests)} are wanted: "
                    "DsaCache.for_model(model) grows"
                )
            count = len(requests) * old.shape[1]
            self.page_table = torch.arange(count, dtype=torch.int32, device=old.device).reshape(len(requests), -1)
        self._remember(self.pads[requests.to(old.device)])
        sources = old[requests.to(old.device), :used].flatten()
        targets = self.page_table[:, :used].flatten()
        for pool in self.pools:
            pool.move(sources, targets, self.slots)

    def _remember(self, pads: torch.Tensor) -> None:
        if self.is_fixed:
            self.pads.copy_(pads)
        else:
            self.pads = pads.to(self.page_table.device)

    def _set_seen(self, tokens: int) -> None:
        self._seen = tokens
        if self._length is not None:
            self._length.fill_(tokens)
        self._pass_is_open, self._step = False, None

    def _most(self) -> int:
        """A bound of what a row may see in this step: the tokens of the pages in use.

        Whole pages, so that steps of a request have one signature for a while.
        """
        return min(pages_for(self.known_tokens() + 1, PAGE_TOKENS) * PAGE_TOKENS, self.max_tokens or self.page_capacity)

    def _grow(self, pages: int) -> None:
        batch, old = self.page_table.shape
        new = torch.arange(batch * old, batch * pages, dtype=torch.int32, device=self.page_table.device)
        self.page_table = torch.cat([self.page_table, new.reshape(batch, -1)], 1)
        for pool in self.pools:
            pool.hold(self.slots)
