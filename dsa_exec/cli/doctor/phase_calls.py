"""The calls that every op gets in one phase of serving, made of tensors without memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.cli.doctor.typical_caches import BF16, KEY, LATENT, ROPE, index_k_cache, meta, mla_cache
from dsa_exec.core.logits_workspace import LogitsWorkspace
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.key_split import KeyPart, KeySplit
from dsa_exec.layouts.paging import pages_for
from dsa_exec.layouts.views import SlotMap
from dsa_exec.ops import (
    attention_merge,
    dense_mla_prefill,
    index_gather,
    index_quant,
    index_select,
    index_store,
    kv_gather,
    kv_store,
    mqa_logits,
    paged_mqa_logits,
    sparse_mla_decode,
    sparse_mla_prefill,
    step_metadata,
    topk,
    topk_candidates,
    topk_merge,
)
from dsa_exec.ops.step_metadata.lengths import Mode
from dsa_exec.ops.step_metadata.metadata import StepMetadata

INDEX_TOPK = 2048
KEY_PARTS = 8
"""Ranks that hold a part of the keys each, where selection and attention over parts are merged."""

SCALE = (128 + ROPE) ** -0.5
F32, I32, I64 = torch.float32, torch.int32, torch.int64


@dataclass(frozen=True, slots=True)
class Phase:
    """Makes the calls of one phase, by the settings as of then.

    Attributes:
        requests: how many there are.
        rows: query rows of all of them.
        index_heads: index heads.
        context: tokens of a request.
    """

    requests: int
    rows: int
    index_heads: int
    context: int

    def index_quant(self) -> Any:
        """The phase's queries are quantised."""
        q = meta(self.rows, self.index_heads, KEY, dtype=BF16)
        return index_quant.Call(q, self._head_weights(), self._index_cache().layout)

    def index_store(self) -> Any:
        """The phase's keys are stored."""
        return index_store.Call(self._index_cache(), meta(self.rows, KEY, dtype=BF16), meta(self.rows, dtype=I64))

    def index_gather(self) -> Any:
        """All keys of the requests are gathered."""
        cache = self._index_cache()
        return index_gather.Call(cache, self._page_table(cache), meta(self.requests, dtype=I32), self.context)

    def mqa_logits(self) -> Any:
        """Gathered keys are scored, as `index_select` does it."""
        keys, logits = self._gathered(), meta(self.rows, self.context, dtype=F32)
        q = self._queries(self._index_cache(), self.rows)
        bounds = keys.starts, keys.ends
        return mqa_logits.Call(q, keys.keys, keys.scales, self._head_weights(), *bounds, clean=False, out=logits)

    def paged_mqa_logits(self) -> Any:
        """Keys in the cache are scored, as `index_select` does it."""
        cache = self._index_cache()
        q, table, width = self._queries(cache, *self._paged_rows), self._page_table(cache), self._width(cache)
        logits = meta(self.rows, width, dtype=F32)
        lens = meta(*self._paged_rows, dtype=I32)
        weights = self._head_weights()
        return paged_mqa_logits.Call(q, cache, weights, lens, table, width, clean=False, out=logits)

    def topk_of_gathered(self) -> Any:
        """Positions are picked out of gathered keys."""
        logits, lens, starts = meta(self.rows, self.context, dtype=F32), *self._bounds()
        return topk.Call(logits, lens, INDEX_TOPK, starts, None)

    def topk_of_paged(self) -> Any:
        """Slots are picked, or positions if `fuse_topk` is off."""
        cache, slots = self._index_cache(), None
        if settings.fuse_topk:
            rows = meta(self.rows, dtype=I64)
            slots = SlotMap(self._page_table(cache), cache.layout.page_tokens, rows, cache.slots)
        logits, lens = meta(self.rows, self._width(cache), dtype=F32), meta(self.rows, dtype=I32)
        return topk.Call(logits, lens, INDEX_TOPK, None, slots)

    def topk_candidates_of_gathered(self) -> Any:
        """One of several ranks tells its best gathered keys."""
        logits = meta(self.rows, self.context // KEY_PARTS, dtype=F32)
        part = self._key_part(-(-self.context // KEY_PARTS))
        return topk_candidates.Call(logits, self._selected(), self._bounds()[0], part)

    def topk_candidates_of_paged(self) -> Any:
        """One of several ranks tells its best keys in its cache, which has pages by turns."""
        cache = self._index_cache()
        logits = meta(self.rows, self._width(cache) // KEY_PARTS, dtype=F32)
        return topk_candidates.Call(logits, self._selected(), None, self._key_part(cache.layout.page_tokens))

    def topk_merge_of_gathered(self) -> Any:
        """The best of several ranks' keys are found, and one rank's own are kept."""
        return self._merge(self._key_part(-(-self.context // KEY_PARTS)), None)

    def topk_merge_of_paged(self) -> Any:
        """The same for keys in caches: what is kept are slots, or positions if `fuse_topk` is off."""
        cache, slots = self._index_cache(), None
        if settings.fuse_topk:
            own = self._page_table(cache)[:, ::KEY_PARTS]
            slots = SlotMap(own, cache.layout.page_tokens, None, cache.slots, self._paged_rows[1])
        return self._merge(self._key_part(cache.layout.page_tokens), slots)

    def index_select_of_gathered(self) -> Any:
        """Gathered keys are scored and picked."""
        q = self._queries(self._index_cache(), self.rows)
        return self._selection(q, self._gathered())

    def index_select_of_paged(self) -> Any:
        """Keys in the cache are scored and picked."""
        cache = self._index_cache()
        keys = index_select.PagedKeys(cache, self._page_table(cache), meta(*self._paged_rows, dtype=I32))
        return self._selection(self._queries(cache, *self._paged_rows), keys)

    def kv_store(self) -> Any:
        """The phase's tokens are stored."""
        latent, rope = (meta(self.rows, width, dtype=BF16) for width in (LATENT, ROPE))
        return kv_store.Call(self._mla_cache(), latent, rope, meta(self.rows, dtype=I64))

    def kv_gather(self) -> Any:
        """All tokens of the requests are gathered."""
        cache = self._mla_cache()
        return kv_gather.Call(cache, self._page_table(cache), meta(self.requests, dtype=I32), self.context, BF16)

    def dense_mla_prefill(self, heads: int) -> Any:
        """A prompt too short to select from attends to all of it."""
        keys = min(self.context, INDEX_TOPK)  # beyond that attention is sparse
        q, kv = (meta(*shape, LATENT + ROPE, dtype=BF16) for shape in ((keys, heads), (keys,)))
        return dense_mla_prefill.Call(q, kv, meta(keys, dtype=I32), meta(keys, dtype=I32), SCALE, LATENT, None)

    def sparse_mla_prefill(self, heads: int) -> Any:
        """Rows attend to gathered tokens."""
        q, kv = (meta(*shape, LATENT + ROPE, dtype=BF16) for shape in ((self.rows, heads), (self.context,)))
        return sparse_mla_prefill.Call(q, kv, self._selected(), SCALE, LATENT, None)

    def sparse_mla_decode(self, heads: int) -> Any:
        """Rows attend to slots of the cache."""
        q = meta(self.rows, heads, LATENT + ROPE, dtype=BF16)
        return sparse_mla_decode.Call(q, self._mla_cache(), self._selected(), SCALE, None)

    def attention_merge(self, heads: int) -> Any:
        """What rows attended to on each of several ranks is put together."""
        outs = meta(KEY_PARTS, self.rows, heads, LATENT, dtype=BF16)
        return attention_merge.Call(outs, meta(KEY_PARTS, self.rows, heads, dtype=F32), None)

    def step_metadata(self) -> Any:
        """Lengths and pages of the phase's rows are worked out."""
        b, n = self._paged_rows
        table = self._page_table(self._index_cache())
        mode: Mode = "decode" if n == 1 else "target_verify"
        out = StepMetadata.allocate(b, n, "meta", table.shape[1], selects=True)
        return step_metadata.Call(mode, meta(b, dtype=I32), n, table, INDEX_TOPK, out)

    @property
    def _paged_rows(self) -> tuple[int, int]:
        return self.requests, self.rows // self.requests

    def _index_cache(self) -> IndexKCache:
        return index_k_cache(self.requests * self.context)

    def _mla_cache(self) -> MlaCache:
        return mla_cache(self.requests * self.context)

    def _page_table(self, cache: IndexKCache | MlaCache) -> torch.Tensor:
        return meta(self.requests, pages_for(self.context, cache.layout.page_tokens), dtype=I32)

    def _width(self, cache: IndexKCache) -> int:
        return pages_for(self.context, cache.layout.page_tokens) * cache.layout.page_tokens

    def _queries(self, cache: IndexKCache, *rows: int) -> torch.Tensor:
        return meta(*rows, self.index_heads, KEY, dtype=E4M3 if cache.layout.format == "fp8" else BF16)

    def _gathered(self) -> index_select.GatheredKeys:
        is_fp8 = self._index_cache().layout.format == "fp8"
        keys = meta(self.context, KEY, dtype=E4M3 if is_fp8 else BF16)
        return index_select.GatheredKeys(keys, meta(self.context, dtype=F32) if is_fp8 else None, *self._bounds())

    def _bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        return meta(self.rows, dtype=I32), meta(self.rows, dtype=I32)

    def _head_weights(self) -> torch.Tensor:
        return meta(self.rows, self.index_heads, dtype=F32)

    def _selected(self) -> torch.Tensor:
        return meta(self.rows, INDEX_TOPK, dtype=I32)

    def _key_part(self, block: int) -> KeyPart:
        return KeyPart(KeySplit(KEY_PARTS, block), 0)

    def _merge(self, part: KeyPart, slots: SlotMap | None) -> Any:
        candidates = meta(KEY_PARTS, self.rows, 2, INDEX_TOPK, dtype=I32)
        return topk_merge.Call(candidates, INDEX_TOPK, None, numbered=True, slot_map=slots, in_order=True, keep=part)

    def _selection(self, q: torch.Tensor, keys: index_select.GatheredKeys | index_select.PagedKeys) -> Any:
        is_paged = isinstance(keys, index_select.PagedKeys)
        scored_by = settings.paged_mqa_logits_backend if is_paged else settings.mqa_logits_backend
        options = INDEX_TOPK, settings.fuse_topk, scored_by, LogitsWorkspace(q.device)
        return index_select.Call(q, self._head_weights(), keys, *options)
