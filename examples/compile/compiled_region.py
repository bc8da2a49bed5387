"""Settings read inside a compiled region: every change is seen by the next call, with one graph for a value."""

import torch

from dsa_config import settings


@torch.compile(fullgraph=True, backend="eager")
def scale(x: torch.Tensor, threshold: int) -> torch.Tensor:
    """A boolean is read inside; a number would compile anew for each value, and comes as an argument."""
    return x * threshold if settings.fuse_topk else x


def call() -> float:
    """Read the number outside, where it costs nothing to change."""
    return scale(torch.ones(1), settings.prefill_dense_attn_kv_len_threshold).item()


print("default:", call())
with settings.override(fuse_topk=False):
    print("in an override:", call())
settings.set(prefill_dense_attn_kv_len_threshold=512)
print("with another threshold:", call())
