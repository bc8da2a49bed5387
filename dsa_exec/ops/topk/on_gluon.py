"""`topk` in Gluon for Hopper: a cluster of blocks a row where rows are few, one block a row where they are many.

`kernel_launch` calls the first `topk.gluon`, the second `topk.gluon_many_rows`.
"""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_hopper, refuses_without_hopper
from dsa_exec.dispatch.backend import Backend
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.topk import Call
from dsa_exec.ops.topk.launch import cluster_launch, refuses_width, takes_clusters
from dsa_exec.ops.topk.many_rows_launch import many_rows_launch


def _refuses(call: Call, hw: Capabilities) -> str | None:
    return refuses_width(call.logits.shape[1]) or refuses_without_hopper(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_hopper(hw)


def _run(call: Call) -> torch.Tensor:
    rows, width = call.logits.shape
    picked = torch.empty(rows, call.k, dtype=torch.int32, device=call.logits.device)
    if rows == 0:
        return picked
    if takes_clusters(rows, width):
        from dsa_exec.ops.topk.kernels.cluster import launch_cluster

        launch_cluster(call, picked, chosen_launch("topk", "gluon", cluster_launch(rows, width)))
    else:
        from dsa_exec.ops.topk.kernels.many_rows import launch_many_rows

        launch_many_rows(call, picked, chosen_launch("topk", "gluon_many_rows", many_rows_launch(rows, width, call.k)))
    return picked


def _footprint(call: Call, _: Capabilities) -> Footprint:
    return Footprint(row_bytes=call.k * 4)  # the result


BACKEND = Backend("gluon", _run, _refuses, _declines, rank=10, footprint=_footprint)
