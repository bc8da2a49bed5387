"""What `dsa plan` assumes of logits is what kernels of this project take."""

from __future__ import annotations

import pytest

from dsa_config import settings
from dsa_exec.cli.doctor.phase_calls import Phase
from dsa_exec.cli.plan.logits import footprint_of
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.core.vendors import Missing
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.ops.index_select.on_torch import BACKEND

V32 = {"model_type": "deepseek_v32", "num_hidden_layers": 2}
NO_LIBRARY = {name: Missing(name, "is not there") for name in ("deep_gemm", "flash_mla", "aiter")}
CPU = Capabilities("cpu", "cpu", "2.11", "3.6", vendors=NO_LIBRARY)


@pytest.mark.parametrize("context", [1, 31, 33, 4096, 131073])
def test_a_planned_row_takes_what_the_op_says(context):
    """The footprint of a selection from gathered keys, where kernels in Triton (here interpreted) score and pick."""
    with assumed(CPU), settings.override(mqa_logits_backend="triton", topk_backend="triton"):
        call = Phase(requests=1, rows=8192, index_heads=64, context=context).index_select_of_gathered()
        told = BACKEND.footprint(call, CPU)
    assert footprint_of(geometry_of(V32, "here"), context) == told
