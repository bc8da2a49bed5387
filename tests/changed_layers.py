"""What tools do to `kv_b_proj`, whose weight alone our attention takes: adapters, hooks, another forward pass."""

from __future__ import annotations

from torch import nn


class Adapter(nn.Linear):
    """Stands for a layer that adds something to its weight's product."""


def hooked(attention) -> None:
    attention.kv_b_proj.register_forward_hook(lambda *_: None)


def hooked_before(attention) -> None:
    attention.kv_b_proj.register_forward_pre_hook(lambda *_: None)


def replaced(attention) -> None:
    attention.kv_b_proj.forward = lambda hidden: hidden
