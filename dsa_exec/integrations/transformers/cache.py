"""Our paged caches as a transformers `Cache`: for each layer an MLA cache and, if it runs an indexer, an index-K cache.

Padding is never stored: position 0 of a request is its first real token.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import RangeError
from dsa_exec.core.hardware import capabilities
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.layouts.paging import pages_for
from dsa_exec.layouts.views import SlotMap, finer_page_table
from dsa_exec.runtime.attention_path import AttentionPath, AttentionSettings, attention_path
from dsa_exec.runtime.query_rows import QueryRows

_log = logging.getLogger("dsa_exec.runtime")

MODEL_TYPES = ("deepseek_v32", "glm_moe_dsa")
PAGE_TOKENS = 64
FIXED_BATCH = "a DsaCache keeps the requests that it was made for: pass batch_size=... to DsaCache.for_model"


@dataclass(frozen=True, slots=True)
class Step:
    """Where the rows of one forward pass go and what they see. Worked out once, used by every layer.

    Attributes:
        windows: what `visible_windows` gave for this pass.
        slots: int64 [b * q], where each new token goes; -1 for padding.
        rows: which tokens each row may attend to. Of padding, `ends` is not above `starts`.
        longest: the most real tokens that a request has, the new ones included.
        context_lens: int32 [b, q], positions of its request that each row sees.
        index_page_table: int32 [b, pages], the same slots under the pages of the index-K caches.
        path: how the rows attend.
    """

    windows: torch.Tensor
    slots: torch.Tensor
    rows: QueryRows
    longest: int
    context_lens: torch.Tensor
    index_page_table: torch.Tensor
    path: AttentionPath

    @property
    def is_decode(self) -> bool:
        """One new token a request: keys and tokens are read from the pages, not gathered first."""
        return self.path.phase == "decode"


class DsaCacheLayer(CacheLayerMixin):
    """One layer's caches. `seen_tokens` counts the tokens of a request, padding included, as transformers does."""

    is_croppable = True

    def __init__(self, mla: MlaCache, index_k: IndexKCache | None, max_tokens: int) -> None:
        super().__init__()
        self.mla = mla
        self.index_k = index_k
        self.max_tokens = max_tokens
        self.seen_tokens = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is left to do: the layer was allocated whole."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> NoReturn:  # noqa: ARG002
        """Refused: only our attention writes here."""
        raise TypeError("a DsaCache is written by our attention: run the model under attached(model)")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys visible after the coming tokens, and their offset."""
        return self.seen_tokens + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens of a request so far."""
        return self.seen_tokens

    def get_max_length(self) -> int:
        """Tokens of a request that there is room for."""
        return self.max_tokens

    def get_max_cache_shape(self) -> int:
        """The same, by its older name."""
        return self.max_tokens

    def reset(self) -> None:
        """Forget every token, and the graph that made it if the cache was trained through."""
        self.seen_tokens = 0
        if self.mla.data.requires_grad:
            self.mla.data.detach_()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens.

        Args:
            tokens_to_remove: how many, as a negative number; a positive one says how many stay, as it once did.
        """
        stay = tokens_to_remove if tokens_to_remove > 0 else self.seen_tokens + tokens_to_remove
        self.seen_tokens = max(0, min(self.seen_tokens, stay))

    def reorder_cache(self, beam_idx: torch.Tensor) -> NoReturn:  # noqa: ARG002
        """Refused: it would copy every token."""
        raise NotSupported("a DsaCache does not move tokens from request to request: generate with num_beams=1")

    def batch_repeat_interleave(self, repeats: int) -> NoReturn:  # noqa: ARG002
        """Refused: the number of requests is fixed."""
        raise NotSupported(FIXED_BATCH)

    def batch_select_indices(self, indices: torch.Tensor) -> NoReturn:  # noqa: ARG002
        """Refused: the number of requests is fixed."""
        raise NotSupported(FIXED_BATCH)


class DsaCache(Cache):
    """Paged caches for all layers of a model, sharing one page table.

    The pages of index-K caches may be smaller, as they are on ROCm without preshuffled keys: the same slots then have
    a table of their own.
    """

    def __init__(self, layers: list[DsaCacheLayer], page_table: torch.Tensor, index_topk: int) -> None:
        super().__init__(layers=list(layers))
        self.max_tokens = layers[0].max_tokens
        self.page_table = page_table
        self.index_topk = index_topk
        self._step: Step | None = None
        _index_page_table(layers, page_table)  # refuses what has none

    @property
    def index_page_table(self) -> torch.Tensor:
        """int32 [b, pages], the same slots as in `page_table`, under the pages of the index-K caches."""
        return _index_page_table([it for it in self.layers if isinstance(it, DsaCacheLayer)], self.page_table)

    @classmethod
    def for_model(cls, model: Any, *, max_tokens: int, batch_size: int = 1) -> DsaCache:
        """Allocate caches in the formats that `index_k_format` and `kv_format` say now, index keys in pages as decided.

        Args:
            model: a `deepseek_v32` or `glm_moe_dsa` model.
            max_tokens: room for each request, padding and generated tokens included.
            batch_size: requests.

        Raises:
            NotSupported: another model.
            RangeError: no room for a token or a request.
            LayoutError: the model's geometry does not fit a format.
        """
        if model.config.model_type not in MODEL_TYPES:
            raise NotSupported(f"model_type={model.config.model_type!r}: {' and '.join(MODEL_TYPES)} are supported")
        args = Arguments("DsaCache.for_model")
        args.number(max_tokens, "max_tokens", low=1)
        args.number(batch_size, "batch_size", low=1)
        config = model.config
        pages = pages_for(max_tokens, PAGE_TOKENS)
        slots = batch_size * pages * PAGE_TOKENS
        where: dict[str, Any] = {"model_dtype": model.dtype}
        layers = []
        for layer in model.model.layers:
            device = next(layer.parameters()).device
            latent, rope = config.kv_lora_rank, config.qk_rope_head_dim
            mla = MlaCache.allocate(
                slots, device=device, latent_dim=latent, rope_dim=rope, page_tokens=PAGE_TOKENS, **where
            )
            runs_indexer = getattr(layer.self_attn, "indexer", None) is not None
            index_k = (
                IndexKCache.allocate(slots, device=device, head_dim=config.index_head_dim, **where)
                if runs_indexer
                else None
            )
            layers.append(DsaCacheLayer(mla, index_k, max_tokens))
        table = torch.arange(batch_size * pages, dtype=torch.int32, device=model.device).reshape(batch_size, pages)
        return cls(layers, table, config.index_topk)

    def step(self, windows: torch.Tensor) -> Step:
        """The metadata of the forward pass that these windows belong to.

        Raises:
            RangeError: more requests or tokens than there is room for.
            UnsupportedPath: a setting names a way of attending that this pass cannot take.
        """
        if self._step is None or self._step.windows is not windows:
            self._step = self._make_step(windows)
        return self._step

    def _make_step(self, windows: torch.Tensor) -> Step:
        batch, _, rows, _ = windows.shape
        room = self.page_table.shape[0], self.max_tokens
        wanted = batch, self.get_seq_length() + rows
        if rows == 0:
            raise RangeError("transformers", "input_ids", "holds no token", "at least one new token a request")
        if wanted[0] != room[0] or wanted[1] > room[1]:
            came = f"was made for batch_size={room[0]} and max_tokens={room[1]}"
            raise RangeError(
                "transformers", "past_key_values", came, f"room for {wanted[0]} requests of {wanted[1]} tokens"
            )
        pads = windows[:, 0, 0, 0]
        lens = windows[:, 0, :, 1] - pads[:, None]  # not above 0 for padding
        seq_lens = lens[:, -1]
        host_lens = seq_lens.tolist()
        request = torch.arange(batch, device=windows.device).repeat_interleave(rows)
        slots = SlotMap(self.page_table, PAGE_TOKENS, request).slots((lens.flatten() - 1)[:, None])[:, 0]
        starts = (seq_lens.cumsum(0) - seq_lens)[request].to(torch.int32)
        context_lens = lens.clamp(min=0)
        return Step(
            windows=windows,
            slots=slots,
            rows=QueryRows(
                page_table=self.page_table,
                seq_lens=seq_lens.contiguous(),
                total_tokens=sum(host_lens),
                request_of_row=request,
                starts=starts,
                ends=starts + context_lens.flatten(),
            ),
            longest=max(host_lens),
            context_lens=context_lens.contiguous(),
            index_page_table=self.index_page_table,
            path=self._path(rows, windows.device, max(host_lens)),
        )

    def _path(self, rows: int, device: torch.device, longest: int) -> AttentionPath:
        layer = self.layers[0]
        assert isinstance(layer, DsaCacheLayer)
        path = attention_path(
            "decode" if rows == 1 else "prefill",
            layer.mla.layout,
            capabilities(device),
            AttentionSettings.now(),
            index_topk=self.index_topk,
            longest_tokens=longest,
        )
        if settings.debug_log_decisions:
            _log.info("%s attends by %s (%s)", path.phase, path.way, path.why)
        return path


def _index_page_table(layers: list[DsaCacheLayer], page_table: torch.Tensor) -> torch.Tensor:
    """The page table of the index-K caches, which is that of the MLA caches where pages are of one size.

    Raises:
        NotSupported: layers have index-K pages of several sizes, or pages that do not divide the MLA caches'.
    """
    sizes = sorted({it.index_k.layout.page_tokens for it in layers if it.index_k is not None})
    if not sizes or sizes == [PAGE_TOKENS]:
        return page_table
    if len(sizes) > 1 or PAGE_TOKENS % sizes[0]:
        raise NotSupported(
            f"index-K caches of layers have pages of {', '.join(map(str, sizes))} tokens: one size for all layers is "
            f"supported, {PAGE_TOKENS} or a divisor"
        )
    return finer_page_table(page_table, PAGE_TOKENS // sizes[0])
