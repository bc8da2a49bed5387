"""`sparse_mla_prefill`: the gluon kernel beside flash_mla on an H100."""

from __future__ import annotations

from dsa_exec.core.measured import Measured

BESIDE_FLASH_MLA = Measured(
    kernel="gluon",
    device="an H100",
    record="benchmarks/results/h100/ops.json",
    shares=((8, 4096, 0.66), (16, 4096, 0.64), (32, 4096, 0.8), (64, 4096, 1.08), (128, 4096, 1.1)),
)
"""2048 indices a row of 65536 rows; flash_mla by this op, with the padding and the kernels around it."""
