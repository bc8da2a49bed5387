"""`torch.ops.dsa.step_metadata`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from dsa_exec.ops.step_metadata.metadata import StepMetadata


def parts_of(metadata: StepMetadata) -> tuple[Tensor | None, ...]:
    """The tensors that a node writes to, in the order of its arguments."""
    return tuple(getattr(metadata, field.name) for field in dataclasses.fields(metadata))


@torch.library.custom_op(
    "dsa::step_metadata",
    mutates_args=(
        "cache_lens",
        "context_lens",
        "request_of_row",
        "expanded",
        "dsa_cache_lens",
        "cu_cache_lens",
        "cu_dsa_cache_lens",
    ),
)
def step_metadata_node(
    step_mode: str,  # `mode` is what torch calls an argument of its own when it traces
    seq_lens: Tensor,
    n: int,
    page_table: Tensor | None,
    index_topk: int | None,
    cache_lens: Tensor,
    context_lens: Tensor,
    request_of_row: Tensor,
    expanded: Tensor | None,
    dsa_cache_lens: Tensor | None,
    cu_cache_lens: Tensor | None,
    cu_dsa_cache_lens: Tensor | None,
) -> None:
    """The public function, into the parts of what it returns."""
    from dsa_exec.ops.step_metadata import step_metadata

    selected = dsa_cache_lens, cu_cache_lens, cu_dsa_cache_lens
    out = StepMetadata(cache_lens, context_lens, request_of_row, expanded, *selected)
    step_metadata(step_mode, seq_lens, n, page_table=page_table, index_topk=index_topk, out=out)  # type: ignore[arg-type]


@step_metadata_node.register_fake
def _fake(*_: object) -> None:
    return None
