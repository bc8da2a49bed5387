"""Attention on the latent with our ops, in the place of transformers' own modules, over the same parameters."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import nn
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as deepseek
from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as glm

from dsa_exec.integrations.transformers.cache import layer_of
from dsa_exec.integrations.transformers.cache_layer import DsaCacheLayer
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.indexer import INDEXERS, DsaIndexer, Rotate
from dsa_exec.integrations.transformers.own_config import remember
from dsa_exec.integrations.transformers.plain import require_plain
from dsa_exec.integrations.transformers.split import heads_here
from dsa_exec.integrations.transformers.windows import require_windows
from dsa_exec.ops.kv_store import kv_store
from dsa_exec.runtime.attend import attend
from dsa_exec.runtime.distributed.shards import is_shard

NAME = "dsa"
"""How transformers calls our attention (`attn_implementation`)."""

THEIRS = "sdpa"
"""What models attend by if nothing is said."""


class _NoGradientPasses(torch.autograd.Function):
    """Passes values on, and refuses gradients, which would silently lack a part of the latent's: that through an FP8
    cache, or that of the heads of other ranks.
    """

    @staticmethod
    def forward(context: Any, values: torch.Tensor, why: str) -> torch.Tensor:
        context.why = why
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *_: torch.Tensor) -> NoReturn:
        raise NotSupported(context.why)


class DsaAttention(nn.Module):
    """Multi-head latent attention over selected tokens, on the latent itself: keys are never expanded to heads.

    In a model that is split over ranks each attends with its own heads, and `o_proj` sums what they give. Latents,
    index keys and selections are the same on all: nothing of them is split.

    Attributes:
        rotate: the model's RoPE.
        returns_selection: whether the next layer is given what this one selected.
        replaced_implementation: what the model attended by before.
    """

    config: Any
    layer_idx: int
    num_heads: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    qk_head_dim: int
    kv_lora_rank: int
    v_head_dim: int
    scaling: float
    attention_dropout: float
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
    replaced_implementation: str = THEIRS

    def __init__(self, config: Any, layer_idx: int) -> None:
        """Make one in the place of transformers' own, in a model that is being loaded."""
        super().__init__(config, layer_idx)  # transformers' class comes next
        if self.indexer is not None and type(self.indexer) in INDEXERS:
            self.indexer.__class__ = INDEXERS[type(self.indexer)]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        remember(self.config)  # of a copy, or from a pickle

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,  # noqa: ARG002
        prev_topk_indices: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """One layer's attention.

        In a graph that is being traced, all of it becomes part of the graph if there is one new token a request and a
        cache of fixed size that a pass has allocated. The rest is run as it is, between graphs.

        Args:
            hidden_states: [b, q, hidden].
            position_embeddings: cos and sin, [b, q, rope] each.
            attention_mask: what `visible_windows` gave.
            past_key_values: a `DsaCache`; a `DynamicCache` or `StaticCache` that is empty or was filled by us; or none.
            position_ids: not needed; already in `position_embeddings`.
            prev_topk_indices: what the layer before selected, for a layer that shares it.
            kwargs: of other attentions.

        Returns:
            The output [b, q, hidden], None (no attention weights), and for GLM the selection, None in a dense pass.

        Raises:
            NotSupported: another cache or another mask than ours; in training, attention dropout; a rank has no whole
                heads. In a backward pass: the cache is FP8, or the model is split over ranks.
        """
        if kwargs.get("output_attentions"):
            raise NotSupported("output_attentions: attention weights are not kept; disable(model) first")
        passed = hidden_states, position_embeddings, attention_mask, past_key_values, prev_topk_indices
        if self.training and self.attention_dropout > 0:
            raise NotSupported(
                f"attention_dropout is {self.attention_dropout}, and our attention drops nothing in training: make the "
                "model with attention_dropout=0, or disable(model) first"
            )
        if torch.compiler.is_compiling() and not _is_traceable(hidden_states, past_key_values):
            return _outside_graphs(self, *passed)
        return self._attend(*passed)

    def _attend(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        windows: torch.Tensor,
        past_key_values: Any,
        selected_before: torch.Tensor | None,
    ) -> tuple[Any, ...]:
        require_windows(windows, self.config._attn_implementation, NAME)
        require_plain(self.kv_b_proj, "kv_b_proj")
        layer_cache = layer_of(
            past_key_values, self.layer_idx, windows, self.config, runs_indexer=self.indexer is not None
        )
        batch, new_tokens, _ = hidden_states.shape
        q_resid = self.q_a_layernorm(self.q_a_proj(hidden_states))
        queries = self.q_b_proj(q_resid).unflatten(-1, (-1, self.qk_head_dim)).transpose(1, 2)
        q_nope, q_rope = queries.split([self.qk_nope_head_dim, self.qk_rope_head_dim], -1)
        latent, k_rope = self.kv_a_proj_with_mqa(hidden_states).split([self.kv_lora_rank, self.qk_rope_head_dim], -1)
        latent = self.kv_a_layernorm(latent).flatten(0, 1)
        q_rope, k_rope = self.rotate(q_rope, k_rope[:, None], *position_embeddings)
        step = layer_cache.prepare(windows, latent)
        assert layer_cache.mla is not None
        kv_store(layer_cache.mla, latent, k_rope.flatten(0, 2), step.slots)
        selected = selected_before
        if self.indexer is not None:
            selection = self.indexer(hidden_states, q_resid, position_embeddings, layer_cache, step)
            selected = None if selection is None else selection.indices
        elif not step.path.selects:
            selected = None
        up = heads_here(self)
        up_k, up_v = up.split([self.qk_nope_head_dim, self.v_head_dim], 1)
        absorbed = torch.einsum("bhqd,hdc->bqhc", q_nope, up_k)
        query = torch.cat([absorbed, q_rope.transpose(1, 2)], -1).flatten(0, 1)
        attended, _ = attend(step.path, query, layer_cache.mla, selected, step.rows, sm_scale=self.scaling)
        if torch.is_grad_enabled() and (why := self._why_no_gradient(layer_cache.mla.layout.format)):
            attended = _NoGradientPasses.apply(attended, why)
        out = torch.einsum("rhc,hvc->rhv", attended, up_v)
        out = self.o_proj(out.reshape(batch, new_tokens, -1))
        layer_cache.finish(step)
        return (out, None, selected) if self.returns_selection else (out, None)

    def _why_no_gradient(self, kv_format: str) -> str | None:
        """Why no gradient can pass the attention; None where it can."""
        if kv_format == "fp8":
            return "no gradient passes an FP8 cache: set kv_format=model to train"
        if is_shard(self.kv_b_proj.weight):
            return "no gradient passes our attention in a model that is split over ranks: disable(model) to train it"
        return None


def _is_traceable(hidden_states: torch.Tensor, past_key_values: Any) -> bool:
    """Whether a layer's attention can be part of a graph. Looks at nothing that is the layer's own."""
    layers = getattr(past_key_values, "layers", [])
    if hidden_states.shape[1] != 1 or not layers:
        return False
    last = layers[-1]
    return isinstance(last, DsaCacheLayer) and last.requests.is_fixed and last.mla is not None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _outside_graphs(attention: DsaAttention, *passed: Any) -> tuple[Any, ...]:
    return attention._attend(*passed)


class DsaDeepseekV32Attention(DsaAttention, deepseek.DeepseekV32Attention):  # type: ignore[misc]
    """DeepSeek-V3.2's, each layer of which selects."""

    rotate = staticmethod(deepseek.apply_rotary_pos_emb_interleave)
    returns_selection = False


class DsaGlmMoeDsaAttention(DsaAttention, glm.GlmMoeDsaAttention):  # type: ignore[misc]
    """GLM's, of which some layers take what the one before selected."""

    rotate = staticmethod(glm.apply_rotary_pos_emb_interleave)
    returns_selection = True


ATTENTIONS: dict[type[Any], type[DsaAttention]] = {
    deepseek.DeepseekV32Attention: DsaDeepseekV32Attention,
    glm.GlmMoeDsaAttention: DsaGlmMoeDsaAttention,
}
"""Ours for each of transformers' own."""
