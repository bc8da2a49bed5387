"""The forward pass of `DeepseekV32ForCausalLM` for training: the same parameters, attention that can be learnt from.

transformers' own forward selects under `no_grad` and holds scores of every indexer head for every pair of tokens. Here
attention is dense or masked by what was selected, and the indexer's loss is worked out some rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """What attention of a layer starts from.

    Attributes:
        q, k, v: [b, heads, s, channels].
        index_q: [b, s, index heads, 128], index_k: [b, s, 128], index_weights: [b, s, index heads]: the indexer's,
            of a detached input: it is taught by the attention and does not teach the rest of the model.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    index_q: Tensor
    index_k: Tensor
    index_weights: Tensor


def rotations(tokens: int, channels: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of RoPE [s, channels / 2]."""
    rates = theta ** -(torch.arange(0, channels, 2, device=device, dtype=torch.float32) / channels)
    angles = torch.arange(tokens, device=device, dtype=torch.float32)[:, None] * rates
    return angles.cos(), angles.sin()


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE over neighbouring channels, as the attention has it."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE over the two halves, as the indexer has it."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def project(attention: nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor) -> Layer:
    """Queries, keys and values of a layer, and the indexer's."""
    b, s, _ = hidden.shape
    rope, nope, heads = attention.qk_rope_head_dim, attention.qk_nope_head_dim, attention.num_heads
    q_resid = attention.q_a_layernorm(attention.q_a_proj(hidden))
    q = attention.q_b_proj(q_resid).view(b, s, heads, nope + rope).transpose(1, 2)
    q = torch.cat([q[..., :nope], rotate_pairs(q[..., nope:], cos, sin)], dim=-1)
    latent, k_rope = attention.kv_a_proj_with_mqa(hidden).split([attention.kv_lora_rank, rope], dim=-1)
    k_rope = rotate_pairs(k_rope, cos, sin)[:, None].expand(-1, heads, -1, -1)
    kv = attention.kv_b_proj(attention.kv_a_layernorm(latent)).view(b, s, heads, -1).transpose(1, 2)
    k = torch.cat([kv[..., :nope], k_rope.to(kv.dtype)], dim=-1)
    return Layer(
        q.to(kv.dtype), k, kv[..., nope:], *index(attention.indexer, hidden.detach(), q_resid.detach(), cos, sin)
    )


def index(
    indexer: nn.Module, hidden: Tensor, q_resid: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The indexer's queries, keys and head weights; the scales of scores and heads are in the weights."""
    b, s, _ = hidden.shape
    rope = indexer.qk_rope_head_dim
    q = indexer.wq_b(q_resid).view(b, s, indexer.n_heads, indexer.head_dim)
    k, dtype = indexer.k_norm(indexer.wk(hidden)), q.dtype
    q = torch.cat([rotate_halves(q[..., :rope], cos[:, None], sin[:, None]), q[..., rope:]], dim=-1)
    k = torch.cat([rotate_halves(k[..., :rope], cos, sin), k[..., rope:]], dim=-1)
    weights = indexer.weights_proj(hidden).float() * (indexer.n_heads**-0.5 * indexer.head_dim**-0.5)
    return q.to(dtype), k.to(dtype), weights


def index_scores(q: Tensor, k: Tensor, weights: Tensor) -> Tensor:
    """Scores f32 [b, rows, keys] of some rows: [b, rows, heads, 128], [b, keys, 128], [b, rows, heads]."""
    products = torch.einsum("bthd,bsd->bths", q, k).relu()
    return torch.einsum("bths,bth->bts", products, weights.to(products.dtype)).float()


def finish(model: nn.Module, hidden: Tensor) -> Tensor:
    """Logits of the last hidden states."""
    return model.lm_head(model.model.norm(hidden))


def mlp(layer: nn.Module, hidden: Tensor) -> Tensor:
    """The second half of a layer."""
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def attended(attention: nn.Module, it: Layer, mask: Tensor | None) -> Tensor:
    """The first half's output: causal attention, or over what a mask bool [b, 1, s, s] lets through."""
    b, _, s, width = it.q.shape
    v = it.v
    if mask is None and v.is_cuda:
        v = F.pad(v, (0, width - v.shape[3]))  # the fastest kernel takes values as wide as keys
    out = F.scaled_dot_product_attention(it.q, it.k, v, attn_mask=mask, is_causal=mask is None, scale=attention.scaling)
    return attention.o_proj(out[..., : it.v.shape[3]].transpose(1, 2).reshape(b, s, -1))
