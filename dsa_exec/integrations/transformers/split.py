"""Models that transformers has split over ranks (tensor parallel): each rank attends with heads of its own.

transformers gives `q_b_proj` and `kv_b_proj` to ranks by rows and `o_proj` by columns, as it does all that is wide; the
indexer and the projections to latents are on every rank. A projection that is split has a forward pass of transformers'
own around its class's, which sums or puts together what ranks have.
"""

from __future__ import annotations

from typing import Any

import torch

from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.runtime.distributed.shards import is_shard, local_part

_SPLITTERS = "transformers.distributed."
"""Where transformers defines the forward passes of what it splits."""


def is_split_by_transformers(module: Any) -> bool:
    """Whether a projection is one of which each rank has a part of the weight, and nothing else was put around it."""
    forward = module.forward
    around = getattr(forward, "__module__", "").startswith(_SPLITTERS)
    return around and is_shard(module.weight)


def heads_here(attention: Any) -> torch.Tensor:
    """The part of `kv_b_proj` that this rank has: [heads, nope + v, latent].

    Raises:
        NotSupported: it is no whole number of heads.
    """
    up = local_part(attention.kv_b_proj.weight)
    channels = attention.qk_nope_head_dim + attention.v_head_dim
    if up.shape[0] % channels:
        raise NotSupported(
            f"kv_b_proj has {up.shape[0]} of its rows on this rank, which are no whole heads of {channels}: split the "
            f"model's {attention.num_heads} heads over a number of ranks that divides them"
        )
    return up.unflatten(0, (-1, channels))


def require_heads_of_one_split(attention: Any) -> None:
    """Check that a rank has whole heads, and of each all that belongs to it.

    Raises:
        NotSupported: it has not, which a plan of another's making can lead to.
    """
    if not any(map(is_split_by_transformers, (attention.kv_b_proj, attention.q_b_proj, attention.o_proj))):
        return
    heads = heads_here(attention).shape[0]
    queries = local_part(attention.q_b_proj.weight).shape[0]
    outputs = local_part(attention.o_proj.weight).shape[1]
    if queries == heads * attention.qk_head_dim and outputs == heads * attention.v_head_dim:
        return
    raise NotSupported(
        f"this rank has {heads} heads of kv_b_proj, {queries / attention.qk_head_dim:g} of q_b_proj and "
        f"{outputs / attention.v_head_dim:g} of o_proj: the plan of tensor parallelism must split all three alike"
    )
