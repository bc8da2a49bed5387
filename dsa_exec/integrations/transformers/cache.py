"""Our paged caches as a transformers `Cache`, and in the place of the layers of transformers' own caches.

Padding is never stored: position 0 of a request is its first real token.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.cache_utils import Cache, DynamicCache, StaticCache

from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import RangeError
from dsa_exec.integrations.transformers.cache_layer import NO_OFFLOADING, DsaCacheLayer, TokenVectors
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.model_shape import require_shape, shape_of
from dsa_exec.integrations.transformers.requests import PagedRequests

MODEL_TYPES = ("deepseek_v32", "glm_moe_dsa")


class DsaCache(Cache):
    """Paged caches for all layers of a model, sharing one page table.

    The pages of index-K caches may be smaller, as they are on ROCm without preshuffled keys: the same slots then have
    a table of their own.

    Attributes:
        requests: pages and lengths of the requests.
    """

    def __init__(self, layers: list[DsaCacheLayer], requests: PagedRequests) -> None:
        super().__init__(layers=list(layers))
        self.requests = requests

    @property
    def max_tokens(self) -> int | None:
        """Room for each request; None: it grows."""
        return self.requests.max_tokens

    @property
    def page_table(self) -> torch.Tensor:
        """int32 [b, pages], the pages of each request in order.

        Raises:
            NotSupported: the cache grows, and no pass has used it.
        """
        return self.requests.page_table

    @page_table.setter
    def page_table(self, table: torch.Tensor) -> None:
        self.requests.page_table = table

    @property
    def index_page_table(self) -> torch.Tensor:
        """int32 [b, pages], the same slots as in `page_table`, under the pages of the index-K caches.

        Raises:
            NotSupported: the cache grows, and no pass has used it.
        """
        return self.requests.index_page_table

    @classmethod
    def for_model(
        cls, model: Any, *, max_tokens: int | None = None, batch_size: int | None = None, hadamard: bool = False
    ) -> DsaCache:
        """A cache in the formats that `index_k_format` and `kv_format` say now, index keys in pages as decided.

        With `max_tokens` it is of fixed size and allocated at once: steps of one token can be compiled. Without, it is
        allocated by the first pass, for as many requests as that has, and grows.

        Args:
            model: a `deepseek_v32` or `glm_moe_dsa` model.
            max_tokens: room for each request, padding and generated tokens included; None: as much as is needed.
            batch_size: requests of a cache of fixed size; 1 if not given.
            hadamard: rotate index keys and queries before they are quantised (fp8 format).

        Raises:
            NotSupported: another model, or no model; with `max_tokens`: `hadamard` where index keys are not quantised.
            RangeError: no room for a token or a request; a number of requests for a cache that grows.
            DtypeError: `hadamard` is no bool.
            LayoutError: the model's geometry does not fit a format.
        """
        _require_model(model)
        args = Arguments("DsaCache.for_model")
        args.kind(hadamard, "hadamard", bool)
        if max_tokens is not None:
            args.number(max_tokens, "max_tokens", low=1)
            args.number(1 if batch_size is None else batch_size, "batch_size", low=1)
        elif batch_size is not None:
            wanted = "None: a cache without max_tokens has as many requests as its first pass"
            raise RangeError("DsaCache.for_model", "batch_size", f"is {batch_size!r}", wanted)
        config = model.config
        requests = PagedRequests(config.index_topk, max_tokens=max_tokens, made_for=shape_of(config))
        modules = list(getattr(model, "model", model).layers)[: config.num_hidden_layers]
        layers = []
        for index, module in enumerate(modules):
            runs_indexer = getattr(module.self_attn, "indexer", None) is not None
            vectors = TokenVectors.of(config, runs_indexer=runs_indexer, hadamard=hadamard)
            is_last = index == len(modules) - 1
            layers.append(DsaCacheLayer(requests, vectors, is_first=index == 0, is_last=is_last))
        if max_tokens is not None:
            requests.open(1 if batch_size is None else batch_size, model.device)
            for layer, module in zip(layers, modules, strict=True):
                layer.allocate(model.dtype, next(module.parameters()).device)
            _ = requests.index_page_table  # refuses what has none
        return cls(layers, requests)


def layer_of(cache: Any, index: int, windows: torch.Tensor, config: Any, *, runs_indexer: bool) -> DsaCacheLayer:
    """The layer of a cache that our attention writes to; one for this pass alone if there is no cache.

    A `DynamicCache` or `StaticCache` of transformers is given layers of ours in the place of its own, which are empty:
    the first grow as they are used, the second are of fixed size.

    Args:
        cache: what came as `past_key_values`.
        index: of the layer in the model.
        windows: of the pass.
        config: of the model.
        runs_indexer: whether the layer has an indexer.

    Raises:
        NotSupported: another cache, or one that another attention has filled or that was made for another model.
    """
    if cache is None:
        return _layer_without_cache(windows, TokenVectors.of(config, runs_indexer=runs_indexer), config.index_topk)
    layers: list[Any] = getattr(cache, "layers", [])  # other classes of transformers have none
    if index == 0 and layers and isinstance(layers[0], DsaCacheLayer):
        require_shape(layers[0].requests.made_for, config)
    if index < len(layers) and isinstance(layers[index], DsaCacheLayer):
        return cast("DsaCacheLayer", layers[index])
    if type(cache) not in (DynamicCache, StaticCache):
        raise NotSupported(
            f"past_key_values is {type(cache).__name__}: pass DsaCache.for_model(model), a DynamicCache, a StaticCache "
            "or none"
        )
    if cache.offloading:
        raise NotSupported(NO_OFFLOADING)
    theirs = layers[index] if index < len(layers) else None
    if theirs is not None and theirs.get_seq_length() > 0:
        raise NotSupported("past_key_values was filled by another attention: pass an empty cache")
    if index == 0:
        room = getattr(theirs, "max_cache_len", None)
        requests = PagedRequests(config.index_topk, max_tokens=room, made_for=shape_of(config))
    else:
        requests = layers[0].requests
    vectors = TokenVectors.of(config, runs_indexer=runs_indexer)
    ours = DsaCacheLayer(requests, vectors, is_first=index == 0, is_last=index == config.num_hidden_layers - 1)
    layers[index : index + 1] = [ours]
    return ours


def _require_model(target: Any) -> None:
    if not isinstance(target, nn.Module) or not hasattr(target, "config"):
        came = f"the class {target.__name__}" if isinstance(target, type) else f"of the class {type(target).__name__}"
        came = repr(target) if isinstance(target, str) else came
        raise NotSupported(f"model is {came}: DsaCache.for_model takes a model of transformers")
    kind = getattr(target.config, "model_type", None)
    if kind not in MODEL_TYPES:
        raise NotSupported(f"model_type={kind!r}: {' and '.join(MODEL_TYPES)} are supported")


_without_cache: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""The requests of passes without a cache, by their windows: layers share what was worked out for them."""


def _layer_without_cache(windows: torch.Tensor, vectors: TokenVectors, index_topk: int) -> DsaCacheLayer:
    requests = _without_cache.get(windows)
    if requests is None:
        batch, _, tokens, _ = windows.shape
        requests = PagedRequests(index_topk, max_tokens=tokens)
        requests.make_room(batch, tokens, windows.device)
        _without_cache[windows] = requests
    requests.pools.clear()  # of the layer before, which nobody reads again
    return DsaCacheLayer(requests, vectors, is_first=False, is_last=False)
