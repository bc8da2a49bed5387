"""Runs on one and on several GPUs, and what the same model as that of a sweep says of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dsa_exec.planning.kernel_fit import Measured
from dsa_exec.planning.kernel_terms import SELECTED, Work
from dsa_exec.planning.kernel_times import KernelTimes
from dsa_exec.planning.machine import Machine
from dsa_exec.planning.step_times import CANDIDATE_BYTES, INDEX_BYTES, output_bytes

_WORK = re.compile(r"(index_select (?:prefill|decode)|sparse_mla_(?:prefill|decode)) (\d+)x(\d+)(?:, (\d+) heads)?")
_STEP = re.compile(r"decode step (\d+x\d+), (\d+) heads")
"""A selection, and attention over what it selected."""

_HEADS = {"index_select": 64, "sparse_mla": 128}
"""Of DeepSeek-V3.2: what a row that does not say them has."""

_LATENT = 512


class Run(NamedTuple):
    """A measured run, and what was predicted for it.

    Attributes:
        work: as the record names it, such as `index_select prefill 8192x131072`.
        way: how it was split, such as `cp keys contiguous`; empty on one GPU.
        gpus: on how many.
        us: measured, in microseconds.
        predicted_us: None where the model says nothing of such work or such a way.
    """

    work: str
    way: str
    gpus: int
    us: float
    predicted_us: float | None

    @property
    def error(self) -> float | None:
        """How far the prediction is from what was measured: 0.1 is ten percent too much."""
        return None if self.predicted_us is None else self.predicted_us / self.us - 1


def compared(rows: Iterable[Mapping[str, Any]], kernels: KernelTimes, machine: Machine) -> tuple[Run, ...]:
    """Measured rows beside their predictions.

    Args:
        rows: each with `work`, `gpus`, `us` and, on several GPUs, `way`, as a record of benchmarks has them, whatever
            else they have.
        kernels: the times that are predicted with.
        machine: its links likewise; the GPUs are of one node.
    """
    return tuple(
        Run(row["work"], row.get("way", ""), row["gpus"], row["us"], _predicted_us(row, kernels, machine))
        for row in rows
    )


def selections(rows: Iterable[Mapping[str, Any]]) -> tuple[Measured, ...]:
    """Those of the rows that are a decode step's selection on one GPU, as a fit has them.

    Args:
        rows: as for `compared`.
    """
    found = ((_WORK.fullmatch(row["work"]), row) for row in rows if row["gpus"] == 1)
    return tuple(
        Measured(it[1], Work(int(it[2]), int(it[3]), int(it[4] or _HEADS["index_select"])), row["us"])
        for it, row in found
        if it is not None and it[1] == "index_select decode"
    )


def _predicted_us(row: Mapping[str, Any], kernels: KernelTimes, machine: Machine) -> float | None:
    if step := _STEP.fullmatch(row["work"]):
        return _step_us(row, step[1], step[2], kernels, machine)
    found = _WORK.fullmatch(row["work"])
    if found is None:
        return None
    op, rows, keys = found[1], int(found[2]), int(found[3])
    heads = int(found[4] or next(heads for name, heads in _HEADS.items() if op.startswith(name)))
    gpus, way = row["gpus"], row.get("way", "")
    if not op.startswith("index_select"):
        return _attention_us(op, way, gpus, Work(rows, min(keys, SELECTED), heads), kernels, machine)
    if gpus == 1:
        return kernels.us(op, Work(rows, keys, heads))
    if way.startswith("cp keys"):
        most = keys / gpus
        if op == "index_select prefill":
            # All rows see all keys of the first rank if it has the first ones, and a share of theirs if it has any.
            most = most + (rows - 1) / 2 if "contiguous" in way else (keys - (rows - 1) / 2) / gpus + (rows - 1) / 2
        merged = kernels.us("topk", Work(rows, gpus * SELECTED, 0))
        gathered = machine.gather_us(gpus, gpus * rows * SELECTED * CANDIDATE_BYTES, gpus)
        return kernels.us(op, Work(rows, most, heads)) + merged + gathered
    if way.startswith(("cp rows", "tp rows")):
        own = -(-rows // gpus)
        seen = keys - (rows - own) / 2 if op == "index_select prefill" else keys
        return kernels.us(op, Work(own, seen, heads)) + machine.gather_us(gpus, rows * SELECTED * INDEX_BYTES, gpus)
    return None


def _step_us(row: Mapping[str, Any], size: str, heads: str, kernels: KernelTimes, machine: Machine) -> float | None:
    """Both parts in the same way; where heads of attention are shared out, every rank selects for itself."""
    alone = {**row, "gpus": 1, "way": ""} if row.get("way", "").startswith("tp heads") else row
    index = _predicted_us({**alone, "work": f"index_select decode {size}"}, kernels, machine)
    attention = _predicted_us({**row, "work": f"sparse_mla_decode {size}, {heads} heads"}, kernels, machine)
    return None if index is None or attention is None else index + attention


def _attention_us(op: str, way: str, gpus: int, work: Work, kernels: KernelTimes, machine: Machine) -> float | None:
    if gpus == 1:
        return kernels.us(op, work)
    if way.startswith("cp keys"):
        outputs, part = work.rows * work.heads * output_bytes(_LATENT), work._replace(keys=work.keys / gpus)
        # A rank that wants its own heads alone is sent these alone.
        own = way.endswith("each rank its heads")
        sent = machine.scatter_us(gpus, outputs, gpus) if own else machine.gather_us(gpus, gpus * outputs, gpus)
        return kernels.us(op, part) + sent
    if way.startswith("tp heads"):
        return kernels.us(op, work._replace(heads=-(-work.heads // gpus)))
    return None
