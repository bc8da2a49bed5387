"""Attention on the latent with our ops, in the place of transformers' own modules, over the same parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import nn
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as deepseek
from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as glm

from dsa_exec.integrations.transformers.cache import DsaCache, DsaCacheLayer, Step
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.ops.index_gather import index_gather
from dsa_exec.ops.index_quant import index_quant
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys, Selection, index_select
from dsa_exec.ops.index_store import index_store
from dsa_exec.ops.kv_store import kv_store
from dsa_exec.runtime.attend import attend

Rotate = Callable[..., tuple[torch.Tensor, torch.Tensor]]

# Which channels of an index vector make a pair for RoPE is the model's choice, and a wrong pairing is a silent loss of
# accuracy: DeepSeek-V3.2 pairs halves, GLM neighbours.
INDEXER_ROTATION: dict[type[nn.Module], Rotate] = {
    deepseek.DeepseekV32Indexer: deepseek.apply_rotary_pos_emb,
    glm.GlmMoeDsaIndexer: glm.apply_rotary_pos_emb_interleave,
}
ATTENTION_ROTATION: dict[type[nn.Module], Rotate] = {
    deepseek.DeepseekV32Attention: deepseek.apply_rotary_pos_emb_interleave,
    glm.GlmMoeDsaAttention: glm.apply_rotary_pos_emb_interleave,
}


class _NoGradientPasses(torch.autograd.Function):
    """Passes values on, and refuses gradients: those through an FP8 cache would silently lack the latent's part."""

    @staticmethod
    def forward(_: Any, values: torch.Tensor) -> torch.Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(_: Any, *__: torch.Tensor) -> NoReturn:
        raise NotSupported("no gradient passes an FP8 cache: set kv_format=model to train")


class DsaIndexer(nn.Module):
    """The lightning indexer: projections as in the model, scores and top-k by `index_select`."""

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
        k = min(self.index_topk, step.longest)
        rows = step.rows
        if step.is_decode:
            paged = PagedKeys(cache, step.index_page_table, step.context_lens)
            return index_select(quantised[:, None], head_weights, paged, k)
        gathered = index_gather(cache, step.index_page_table, rows.seq_lens, rows.total_tokens)
        return index_select(quantised, head_weights, GatheredKeys(*gathered, rows.starts, rows.ends), k)

    def _rotated(self, vectors: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Index vectors [b, q, h, head_dim] with their RoPE part rotated."""
        rope, rest = vectors.split([self.qk_rope_head_dim, self.head_dim - self.qk_rope_head_dim], -1)
        rotated, _ = self.rotate(rope, rope[:, :, :0], *position_embeddings, unsqueeze_dim=2)
        return torch.cat([rotated, rest], -1)


class DsaAttention(nn.Module):
    """Multi-head latent attention over selected tokens, on the latent itself: keys are never expanded to heads."""

    layer_idx: int
    num_heads: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    qk_head_dim: int
    kv_lora_rank: int
    v_head_dim: int
    scaling: float
    q_a_proj: nn.Linear
    q_a_layernorm: nn.Module
    q_b_proj: nn.Linear
    kv_a_proj_with_mqa: nn.Linear
    kv_a_layernorm: nn.Module
    kv_b_proj: nn.Linear
    o_proj: nn.Linear
    indexer: DsaIndexer | None
    rotate: Rotate
    returns_selection: bool

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor,
        past_key_values: DsaCache | None = None,
        position_ids: torch.Tensor | None = None,  # noqa: ARG002
        prev_topk_indices: Selection | None = None,
        **_kwargs: Any,
    ) -> tuple[Any, ...]:
        """One layer's attention.

        Args:
            hidden_states: [b, q, hidden].
            position_embeddings: cos and sin, [b, q, rope] each.
            attention_mask: what `visible_windows` gave.
            past_key_values: a `DsaCache`.
            position_ids: not needed; already in `position_embeddings`.
            prev_topk_indices: the selection of the layer before, for a layer that shares it.

        Returns:
            The output [b, q, hidden], None (no attention weights), and for GLM the selection, None in a dense pass.

        Raises:
            NotSupported: another cache or another mask than ours. In a backward pass: the cache is FP8.
        """
        if not isinstance(past_key_values, DsaCache):
            came = f"past_key_values is {type(past_key_values).__name__}"
            raise NotSupported(f"{came}: pass past_key_values=DsaCache.for_model(model, max_tokens=...)")
        if attention_mask.dtype != torch.int32 or attention_mask.shape[-1] != 2:
            raise NotSupported(
                "attention_mask was made by the caller: only causal masks with left padding are supported"
            )
        layer_cache = past_key_values.layers[self.layer_idx]
        assert isinstance(layer_cache, DsaCacheLayer)
        step = past_key_values.step(attention_mask)
        batch, new_tokens, _ = hidden_states.shape
        q_resid = self.q_a_layernorm(self.q_a_proj(hidden_states))
        queries = self.q_b_proj(q_resid).unflatten(-1, (-1, self.qk_head_dim)).transpose(1, 2)
        q_nope, q_rope = queries.split([self.qk_nope_head_dim, self.qk_rope_head_dim], -1)
        latent, k_rope = self.kv_a_proj_with_mqa(hidden_states).split([self.kv_lora_rank, self.qk_rope_head_dim], -1)
        latent = self.kv_a_layernorm(latent).flatten(0, 1)
        q_rope, k_rope = self.rotate(q_rope, k_rope[:, None], *position_embeddings)
        kv_store(layer_cache.mla, latent, k_rope.flatten(0, 2), step.slots)
        if self.indexer is None:
            selection = prev_topk_indices
            assert selection is not None or not step.path.selects, "a layer that shares a selection follows its maker"
        else:
            selection = self.indexer(hidden_states, q_resid, position_embeddings, layer_cache, step)
        layer_cache.seen_tokens += new_tokens
        up = self.kv_b_proj.weight.unflatten(0, (self.num_heads, -1))
        up_k, up_v = up.split([self.qk_nope_head_dim, self.v_head_dim], 1)
        absorbed = torch.einsum("bhqd,hdc->bqhc", q_nope, up_k)
        query = torch.cat([absorbed, q_rope.transpose(1, 2)], -1).flatten(0, 1)
        selected = None if selection is None else selection.indices
        rows = None if step.is_decode else step.rows
        attended, _ = attend(step.path, query, layer_cache.mla, selected, rows, sm_scale=self.scaling)
        if layer_cache.mla.layout.format == "fp8":
            attended = _NoGradientPasses.apply(attended)
        out = torch.einsum("rhc,hvc->rhv", attended, up_v)
        out = self.o_proj(out.reshape(batch, new_tokens, -1))
        return (out, None, selection) if self.returns_selection else (out, None)


def ours(attention: nn.Module) -> Any:
    """Our attention over the parameters of one of transformers' own.

    The new module shares the tables of parameters, buffers, submodules and hooks with the old one: nothing is copied,
    names in a state dict stay, and what is hooked to the old module is hooked to the new one.
    """
    replacement = _as(attention, DsaAttention)
    replacement.rotate = ATTENTION_ROTATION[type(attention)]
    replacement.returns_selection = isinstance(attention, glm.GlmMoeDsaAttention)
    indexer = getattr(attention, "indexer", None)
    if indexer is not None:
        replacement._modules = {**replacement._modules, "indexer": _as(indexer, DsaIndexer)}
        replacement.indexer.rotate = INDEXER_ROTATION[type(indexer)]
    return replacement


def _as(module: nn.Module, kind: type[nn.Module]) -> Any:
    twin: Any = copy.copy(module)
    twin.__class__ = kind
    return twin
