"""The lightning indexer on our ops, in the place of transformers' own, over the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as deepseek
from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as glm

from dsa_exec.integrations.transformers.cache_layer import DsaCacheLayer
from dsa_exec.integrations.transformers.step import Step
from dsa_exec.ops.index_gather import index_gather
from dsa_exec.ops.index_quant import index_quant
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys, Selection, index_select
from dsa_exec.ops.index_store import index_store

Rotate = Callable[..., tuple[torch.Tensor, torch.Tensor]]


class DsaIndexer(nn.Module):
    """Projections as in the model, scores and top-k by `index_select`.

    Attributes:
        rotate: the model's RoPE of index vectors. Which channels make a pair is the model's choice, and a wrong pairing
            is a silent loss of accuracy.
    """

    layer_idx: int
    n_heads: int
    head_dim: int
    qk_rope_head_dim: int
    index_topk: int
    wq_b: nn.Linear
    wk: nn.Linear
    k_norm: nn.Module
    weights_proj: nn.Linear
    rotate: Rotate

    @torch.no_grad()
    def forward(
        self,
        hidden_states: torch.Tensor,
        q_resid: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        layer_cache: DsaCacheLayer,
        step: Step,
    ) -> Selection | None:
        """Store the new keys, and select for each row, unless the rows attend to all that they see.

        Args:
            hidden_states: [b, q, hidden].
            q_resid: [b, q, q_lora_rank], what the attention's query projection is made from.
            position_embeddings: cos and sin, [b, q, rope] each.
            layer_cache: the layer's caches.
            step: the pass.

        Returns:
            The selection of the b * q rows: positions in prefill, slots in decode; None in a dense pass.
        """
        assert layer_cache.index_k is not None, "the cache was made for a model in which this layer has no indexer"
        cache = layer_cache.index_k
        keys = self._rotated(self.k_norm(self.wk(hidden_states))[:, :, None], position_embeddings)
        index_store(cache, keys.flatten(0, 2), step.slots)
        if not step.path.selects:
            return None
        queries = self.wq_b(q_resid).unflatten(-1, (self.n_heads, self.head_dim))
        queries = self._rotated(queries, position_embeddings).flatten(0, 1)
        weights = self.weights_proj(hidden_states.to(self.weights_proj.weight.dtype)).flatten(0, 1)
        quantised, head_weights = index_quant(queries, weights, cache.layout)
        k = min(self.index_topk, step.most_seen)
        page_table = layer_cache.requests.index_page_table.to(keys.device)
        if step.rows is None:
            paged = PagedKeys(cache, page_table, step.context_lens)
            return index_select(quantised[:, None], head_weights, paged, k)
        gathered = index_gather(cache, page_table, step.rows.seq_lens, step.rows.total_tokens)
        return index_select(quantised, head_weights, GatheredKeys(*gathered, step.rows.starts, step.rows.ends), k)

    def _rotated(self, vectors: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Index vectors [b, q, h, head_dim] with their RoPE part rotated."""
        rope, rest = vectors.split([self.qk_rope_head_dim, self.head_dim - self.qk_rope_head_dim], -1)
        rotated, _ = self.rotate(rope, rope[:, :, :0], *position_embeddings, unsqueeze_dim=2)
        return torch.cat([rotated, rest], -1)


class DsaDeepseekV32Indexer(DsaIndexer, deepseek.DeepseekV32Indexer):  # type: ignore[misc]
    """DeepSeek-V3.2's, which pairs halves."""

    rotate = staticmethod(deepseek.apply_rotary_pos_emb)


class DsaGlmMoeDsaIndexer(DsaIndexer, glm.GlmMoeDsaIndexer):  # type: ignore[misc]
    """GLM's, which pairs neighbours."""

    rotate = staticmethod(glm.apply_rotary_pos_emb_interleave)


INDEXERS: dict[type[Any], type[DsaIndexer]] = {
    deepseek.DeepseekV32Indexer: DsaDeepseekV32Indexer,
    glm.GlmMoeDsaIndexer: DsaGlmMoeDsaIndexer,
}
"""Ours for each of transformers' own."""
