"""`torch.ops.dsa.step_metadata`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.ops.step_metadata.metadata import StepMetadata


@torch.library.custom_op(
    "dsa::step_metadata", mutates_args=("cache_lens", "context_lens", "request_of_row", "expanded")
)
def step_metadata_node(
    step_mode: str,  # `mode` is what torch calls an argument of its own when it traces
    seq_lens: Tensor,
    n: int,
    page_table: Tensor | None,
    cache_lens: Tensor,
    context_lens: Tensor,
    request_of_row: Tensor,
    expanded: Tensor | None,
) -> None:
    """The public function, into the parts of what it returns."""
    from dsa_exec.ops.step_metadata import step_metadata

    out = StepMetadata(cache_lens, context_lens, request_of_row, expanded)
    step_metadata(step_mode, seq_lens, n, page_table=page_table, out=out)  # type: ignore[arg-type]


@step_metadata_node.register_fake
def _fake(*_: object) -> None:
    return None
