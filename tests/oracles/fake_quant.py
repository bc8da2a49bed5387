"""Plain transformers with index vectors and latents rounded to what the fp8 caches keep. Imports nothing of ours.

Index queries and keys: one e4m3 block of 128 channels, scale amax / 448 with amax at least 1e-4. Latents: e4m3 in
groups of 128. RoPE parts of keys: bf16.
"""

from __future__ import annotations

import contextlib
import importlib

import torch
import torch.nn.functional as F


def rounded(values: torch.Tensor, block: int) -> torch.Tensor:
    """Values as e4m3 keeps them, in blocks with a scale."""
    blocks = values.float().reshape(*values.shape[:-1], -1, block)
    scale = blocks.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-4) / 448
    codes = (blocks / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    return (codes.float() * scale).reshape(values.shape).to(values.dtype)


class RoundedIndexer(torch.nn.Module):
    """transformers' indexer, step by step, on rounded queries and keys."""

    def __init__(self, original, rotate):
        super().__init__()
        self.original, self.rotate, self.layer_idx = original, rotate, original.layer_idx

    @torch.no_grad()
    def forward(self, hidden_states, q_resid, position_embeddings, attention_mask, position_ids, past_key_values=None):
        it = self.original
        rope = it.qk_rope_head_dim
        q = it.wq_b(q_resid).reshape(*hidden_states.shape[:2], it.n_heads, it.head_dim)
        k = it.k_norm(it.wk(hidden_states)).unsqueeze(2)
        q_rope, k_rope = self.rotate(q[..., :rope], k[..., :rope], *position_embeddings, unsqueeze_dim=2)
        q = rounded(torch.cat([q_rope, q[..., rope:]], -1), it.head_dim)
        k = rounded(torch.cat([k_rope, k[..., rope:]], -1), it.head_dim).squeeze(2)
        k = past_key_values.update_indexer(k, it.layer_idx)
        weights = it.weights_proj(hidden_states).float() * it.n_heads**-0.5
        dots = F.relu(torch.einsum("bshd,btd->bsht", q.float(), k.float()) * it.head_dim**-0.5)
        scores = torch.einsum("bsht,bsh->bst", dots, weights)
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, -torch.inf)
        else:
            scores = scores + attention_mask
        return scores.topk(min(it.index_topk, scores.shape[-1]), dim=-1).indices.to(torch.int32)


@contextlib.contextmanager
def fake_quantised(model):
    """Round index vectors, latents and RoPE parts of a live transformers model until the block ends."""
    modeling = importlib.import_module(type(model).__module__)
    rotate_attention = modeling.apply_rotary_pos_emb_interleave
    rotate_indexer = getattr(modeling, "apply_rotary_pos_emb", rotate_attention)

    def rotate_and_round(q, k, cos, sin, position_ids=None, unsqueeze_dim=1):
        q, k = rotate_attention(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        return q, k.to(torch.bfloat16).to(k.dtype)

    undo = []
    modeling.apply_rotary_pos_emb_interleave = rotate_and_round
    try:
        for layer in model.model.layers:
            attention = layer.self_attn
            norm = attention.kv_a_layernorm
            undo.append(norm.register_forward_hook(lambda _, __, latent: rounded(latent, 128)).remove)
            if attention.indexer is not None:
                original = attention.indexer
                attention.indexer = RoundedIndexer(original, rotate_indexer)
                undo.append(lambda attention=attention, original=original: setattr(attention, "indexer", original))
        yield
    finally:
        modeling.apply_rotary_pos_emb_interleave = rotate_attention
        for step in undo:
            step()
