"""Calls of ops within `torch.compile` and `torch.export`: each op is one node of the graph, `torch.ops.dsa.<op>`.

An op's `custom_op.py` registers it. When the graph runs, the node calls the public function, which checks its arguments
and reads the settings as of then: a compiled program follows a setting as eager code does.
"""

from __future__ import annotations

import torch


def is_one_node(*inputs: torch.Tensor | None) -> bool:
    """Whether a call is being traced and may become one node: the nodes pass no gradients.

    Its arguments are not checked yet. Who has to reach into one asks `torch.compiler.is_compiling()` first.

    Args:
        inputs: the tensors that a gradient could pass to; none for an op that passes none.
    """
    if not torch.compiler.is_compiling():
        return False
    wanted = torch.is_grad_enabled() and any(it is not None and it.requires_grad for it in inputs)
    return not wanted
