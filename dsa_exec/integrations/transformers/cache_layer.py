"""One layer's part of a transformers cache: an MLA cache and, if the layer runs an indexer, an index-K cache."""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from transformers.cache_utils import CacheLayerMixin

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import RangeError
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.requests import PagedRequests
from dsa_exec.integrations.transformers.static_address import hold_address
from dsa_exec.integrations.transformers.step import PAGE_TOKENS, Step
from dsa_exec.layouts.paging import pages_for

NO_OFFLOADING = "caches of ours stay on the device: pass a cache without offloading"


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """What a layer keeps of a token.

    Attributes:
        latent_dim: channels of the latent (kv_lora_rank).
        rope_dim: channels of the RoPE part (qk_rope_head_dim).
        index_dim: channels of the index key (index_head_dim); None: the layer has no indexer.
        hadamard: rotate index keys and queries before they are quantised (fp8 format).
    """

    latent_dim: int
    rope_dim: int
    index_dim: int | None
    hadamard: bool = False

    @classmethod
    def of(cls, config: Any, *, runs_indexer: bool, hadamard: bool = False) -> TokenVectors:
        """As a model's configuration says."""
        index_dim = config.index_head_dim if runs_indexer else None
        return cls(config.kv_lora_rank, config.qk_rope_head_dim, index_dim, hadamard)


class DsaCacheLayer(CacheLayerMixin):
    """One layer's caches. Tokens are counted for all layers together (`PagedRequests`).

    Attributes:
        requests: whose tokens they are.
        vectors: what is kept of a token.
        mla: latents; None until the first pass allocates them.
        index_k: index keys, if the layer has an indexer.
    """

    is_croppable = True
    is_sliding = False
    supports_early_init = False

    def __init__(self, requests: PagedRequests, vectors: TokenVectors, *, is_first: bool, is_last: bool) -> None:
        """Make a layer without memory.

        Args:
            requests: whose tokens.
            vectors: what to keep of a token.
            is_first: what concerns the requests of all layers is done by this one.
            is_last: a pass has been through all layers after this one.
        """
        super().__init__()
        self.requests = requests
        self.vectors = vectors
        self.is_first = is_first
        self.is_last = is_last
        self.mla: MlaCache | None = None
        self.index_k: IndexKCache | None = None

    @property
    def is_compileable(self) -> bool:  # type: ignore[override]
        """Whether steps of one token can be compiled: its tensors stay where they are."""
        return self.requests.is_fixed

    @property
    def batch_size(self) -> int:
        """How many requests there are."""
        return self.requests.batch_size

    @property
    def index_page_tokens(self) -> int | None:
        """Tokens a page of the index-K cache; None without one."""
        return None if self.index_k is None else self.index_k.layout.page_tokens

    def prepare(self, windows: torch.Tensor, latent: torch.Tensor) -> Step:
        """The step of a pass. Makes room in the first layer, and allocates what was not yet.

        Args:
            windows: int32 [b, 1, q, 2], what `visible_windows` gave.
            latent: [..., latent_dim], what is to be kept, for its dtype and device.

        Raises:
            RangeError: more requests or tokens than there is room for.
            NotSupported: the pass says of its padding other than those before.
            LayoutError: the model's geometry does not fit a format.
            UnsupportedPath: a setting names a way of attending that this pass cannot take.
        """
        if torch.compiler.is_compiling():
            assert self.mla is not None
            return self.requests.traced_step(windows, self.mla.layout)
        if self.is_first and not self.requests.is_step_of(windows):
            self.requests.make_room(windows.shape[0], windows.shape[2], windows.device)
        if self.mla is None:
            self.allocate(latent.dtype, latent.device)
        assert self.mla is not None
        return self.requests.step(windows, self.mla.layout)

    def finish(self, step: Step) -> None:
        """Say that the layer has attended, after which the last one counts the tokens."""
        if self.is_last:
            self.requests.advance(step.context_lens.shape[1], step.pads)

    def allocate(self, dtype: torch.dtype, device: torch.device) -> None:
        """Allocate in the formats that `index_k_format` and `kv_format` say now, index keys in pages as decided.

        Raises:
            LayoutError: the geometry does not fit a format.
            NotSupported: index keys are to be rotated, and kept in a format that is not quantised.
        """
        slots, vectors = self.requests.slots, self.vectors
        if vectors.hadamard and vectors.index_dim is not None and settings.index_k_format == "model":
            raise NotSupported("hadamard=True rotates index keys to quantise them, and index_k_format=model does not")
        where: dict[str, Any] = {"model_dtype": dtype, "device": device}
        latents: dict[str, Any] = {
            "latent_dim": vectors.latent_dim,
            "rope_dim": vectors.rope_dim,
            "page_tokens": PAGE_TOKENS,
        }
        with torch.inference_mode(mode=False):  # what is made under it could not be written to outside of it
            mla = MlaCache.allocate(slots, **latents, **where)
            if vectors.index_dim is not None:
                keys: dict[str, Any] = {"head_dim": vectors.index_dim, "hadamard": vectors.hadamard}
                self.index_k = IndexKCache.allocate(slots, **keys, **where)
        self.mla = mla
        self.is_initialized = True
        if self.requests.is_fixed:
            for tensor, _ in self._tensors():
                hold_address(tensor)
        self.requests.add(self)

    def hold(self, slots: int) -> None:
        """Have so many slots or more, with the same tokens in those that there are."""
        assert self.mla is not None
        if slots <= self.mla.slots:
            return
        with torch.inference_mode(mode=False):
            self.mla = dataclasses.replace(self.mla, data=_longer(self.mla.data, slots))
            if self.index_k is not None:
                pages = pages_for(slots, self.index_k.layout.page_tokens)
                self.index_k = dataclasses.replace(self.index_k, data=_longer(self.index_k.data, pages))

    def move(self, sources: torch.Tensor, targets: torch.Tensor, slots: int) -> None:
        """Copy pages of 64 tokens to other pages, and have so many slots or more.

        Args:
            sources: int32 [n], which pages.
            targets: int32 [n], where to; none twice.
            slots: how many there must be.
        """
        moved = [tensor[_rows_of(sources, rows, tensor.device)] for tensor, rows in self._tensors()]
        self.hold(slots)
        for (tensor, rows), tokens in zip(self._tensors(), moved, strict=True):
            tensor[_rows_of(targets, rows, tensor.device)] = tokens

    def forget(self) -> None:
        """Keep no graph of a backward pass, if the cache was trained through."""
        for tensor, _ in self._tensors():
            if tensor.requires_grad:
                tensor.detach_()

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is done: the first pass of our attention allocates."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> NoReturn:  # noqa: ARG002
        """Refused: only our attention writes here."""
        raise TypeError("a cache of ours is written by our attention: enable(model), or run it under attached(model)")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that there may be after the coming tokens, and their offset."""
        if self.requests.max_tokens is not None:
            return self.requests.max_tokens, 0
        return self.requests.known_tokens() + query_length, 0

    def get_seq_length(self) -> int | torch.Tensor:  # type: ignore[override]
        """Tokens of a request so far, padding included; a tensor where only the device knows."""
        return self.requests.seen_tokens()

    def get_max_length(self) -> int:
        """Tokens of a request that there is room for; -1 if the cache grows."""
        return -1 if self.requests.max_tokens is None else self.requests.max_tokens

    def get_max_cache_shape(self) -> int:
        """The same, by its older name."""
        return self.get_max_length()

    def reset(self) -> None:
        """Forget every token, of all layers."""
        if self.is_first:
            self.requests.reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens, of all layers.

        Args:
            tokens_to_remove: how many, as a negative number; a positive one says how many stay, as it once did.

        Raises:
            RangeError: no whole number.
        """
        if isinstance(tokens_to_remove, bool) or not hasattr(tokens_to_remove, "__index__"):
            raise RangeError("DsaCache.crop", "tokens_to_remove", f"is {tokens_to_remove!r}", "an integer")
        if self.is_first:
            self.requests.crop(operator.index(tokens_to_remove))

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Give each request the tokens of another, in all layers: a beam goes on from the one that it came from."""
        if self.is_first:
            self.requests.choose(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Have each request several times, in all layers.

        Args:
            repeats: how many times.

        Raises:
            RangeError: not even once.
            NotSupported: the cache is of fixed size.
        """
        Arguments("DsaCache.batch_repeat_interleave").number(repeats, "repeats", low=1)
        if self.is_first:
            self.requests.choose(torch.arange(self.batch_size).repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some requests, in all layers.

        Args:
            indices: int [n] or bool [b], which.

        Raises:
            RangeError: none at all.
            NotSupported: the cache is of fixed size.
        """
        if self.is_first:
            chosen = torch.arange(self.batch_size)[indices.cpu()]
            if len(chosen) == 0:
                raise RangeError("DsaCache.batch_select_indices", "indices", "name no request", "one request at least")
            self.requests.choose(chosen)

    def offload(self) -> NoReturn:
        """Refused."""
        raise NotSupported(NO_OFFLOADING)

    def prefetch(self) -> NoReturn:
        """Refused."""
        raise NotSupported(NO_OFFLOADING)

    def _tensors(self) -> list[tuple[torch.Tensor, int]]:
        """The caches' tensors, and how many of their rows make a page of 64 tokens."""
        tensors = [] if self.mla is None else [(self.mla.data, PAGE_TOKENS)]
        if self.index_k is not None:
            tensors.append((self.index_k.data, PAGE_TOKENS // self.index_k.layout.page_tokens))
        return tensors


def _longer(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    return torch.cat([tensor, tensor.new_zeros(rows - tensor.shape[0], *tensor.shape[1:])])


def _rows_of(pages: torch.Tensor, rows: int, device: torch.device) -> torch.Tensor:
    """The rows of pages: int64 [n * rows] of int32 [n]."""
    first = pages.to(device=device, dtype=torch.int64) * rows
    return (first[:, None] + torch.arange(rows, device=device)).flatten()
