"""`sparse_mla_decode`: the gluon kernel beside flash_mla on an H100."""

from __future__ import annotations

from dsa_exec.core.measured import Measured

BESIDE_FLASH_MLA = Measured(
    kernel="gluon",
    device="an H100",
    record="benchmarks/results/h100/ops.json",
    shares=(
        *((16, 1, 0.48), (16, 32, 0.63), (16, 128, 0.72)),
        *((64, 1, 0.88), (64, 32, 1.14), (64, 128, 1.32)),
        *((128, 1, 0.93), (128, 32, 1.38), (128, 128, 1.53)),
    ),
)
"""2048 slots a row, replayed from a graph; flash_mla with its heads padded to 64 or 128."""
