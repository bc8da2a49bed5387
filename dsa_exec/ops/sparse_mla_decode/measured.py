"""`sparse_mla_decode`: the gluon kernel beside flash_mla on an H100."""

from __future__ import annotations

from dsa_exec.core.measured import Measured

BESIDE_FLASH_MLA = Measured(
    kernel="gluon",
    device="an H100",
    record="benchmarks/results/h100/ops-without-overlap.json",
    shares=(
        *((16, 1, 0.43), (16, 32, 0.56), (16, 128, 0.69)),
        *((64, 1, 0.75), (64, 32, 0.96), (64, 128, 1.27)),
        *((128, 1, 0.8), (128, 32, 1.21), (128, 128, 1.49)),
    ),
)
"""2048 slots a row, replayed from a graph; flash_mla by this op, with the padding and the kernels around it.

Of a time before kernels overlapped. They do not now where one request has 64 heads or more, and elsewhere ours is up to
12 % faster than it was, which changes nothing about who is.
"""
