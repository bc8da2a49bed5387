"""From what was asked of `dsa plan --sweep` to its report."""

from __future__ import annotations

import dataclasses

import dsa_config
from dsa_exec.cli.plan.checkpoint import config_file, read_object
from dsa_exec.cli.plan.rank_memory import static_fraction
from dsa_exec.cli.plan.sizes import count_words
from dsa_exec.cli.plan.sweep_asked import SweepAsked
from dsa_exec.cli.plan.sweep_report import (
    SweepCell,
    SweepDeployment,
    SweepFitError,
    SweepMemory,
    SweepNumber,
    SweepReport,
    SweepRun,
)
from dsa_exec.cli.show_report import count
from dsa_exec.memory.geometry import ModelGeometry, geometry_of
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.pool_memory import static_bytes
from dsa_exec.planning.kernel_times import FitError, KernelTimes, kernel_times
from dsa_exec.planning.machine import origins
from dsa_exec.planning.measured_runs import compared, selections
from dsa_exec.planning.model_weights import weights_of
from dsa_exec.planning.step_times import Model
from dsa_exec.planning.sweep import Cell, Deployment, sweep

FEW = 2
"""Requests of a decode step whose indexer was measured to take much longer than its continued fit says."""

COVERS = (
    (
        "Counted are indexer, top-k and sparse attention by measured kernels; projections, experts and the head by "
        "roofline; communication, which overlaps with nothing; and the idle stages of pipelines."
    ),
    "Experts are taken to be evenly loaded. No whole model was measured.",
)


def sweep_report_of(asked: SweepAsked) -> SweepReport:
    """The sweep of what the command line says.

    Raises:
        CheckpointError, GeometryError, PlanError, LayoutError: what was given is wrong.
        SettingError: the setting mem_fraction_static cannot be read.
    """
    file = config_file(asked.model)
    config = read_object(file)
    geometry = geometry_of(config, str(file))
    weights, kernels = weights_of(config, geometry), kernel_times()
    fraction, origin = static_fraction(asked.mem_fraction_static)
    static = static_bytes(asked.gpu_bytes, fraction)
    model = Model(geometry, weights, kernels, asked.machine)
    cells = sweep(model, static, asked.gpus, asked.contexts, PlanOptions(page_tokens=asked.page_tokens))
    known = {**origins(), **asked.given}
    return SweepReport(
        version=dsa_config.__version__,
        file=str(file),
        model_type=geometry.model_type,
        gpu_bytes=asked.gpu_bytes,
        static_bytes=static,
        static_origin=f"mem_fraction_static {float(fraction):g}: {origin}",
        kernels=f"{kernels.device}, {kernels.date}",
        numbers=[
            SweepNumber(name=name, value=value, origin=known[name])
            for name, value in dataclasses.asdict(asked.machine).items()
        ],
        fit_errors=[_fit_error(it) for it in kernels.errors()],
        runs=[
            SweepRun(
                work=it.work,
                way=it.way,
                gpus=it.gpus,
                measured_us=it.us,
                predicted_us=it.predicted_us,
                error=it.error,
            )
            for it in compared(kernels.runs, kernels, asked.machine)
        ],
        cells=[_cell(it, static) for it in cells],
        notes=[*geometry.notes, *weights.notes, *COVERS, *_of_contexts(asked, geometry, kernels)],
    )


def _fit_error(it: FitError) -> SweepFitError:
    rows, keys, heads = it.worst_at
    where = f"{count(int(rows), 'row')}, {count_words(int(keys))} keys" + (f", {heads} heads" if heads else "")
    return SweepFitError(op=it.name, rows=it.rows, median=it.median, worst=it.worst, worst_at=where)


def _cell(it: Cell, static: int) -> SweepCell:
    best = None if it.best is None else _deployment(it.best, static)
    return SweepCell(gpus=it.gpus, context_tokens=it.context, splits=it.splits, best=best, why_not=it.why_not)


def _deployment(it: Deployment, static: int) -> SweepDeployment:
    world = it.world
    return SweepDeployment(
        tp=world.tp,
        pp=world.pp,
        dp=world.dp,
        cp=world.cp,
        attention_tp=world.attention_tp,
        requests=it.requests,
        tokens_per_s=it.tokens_a_second,
        tokens_per_s_per_gpu=it.tokens_a_second / world.ranks,
        gpu_s_per_million_tokens=it.gpu_seconds_a_million,
        ms_per_token=it.step_us / 1e3,
        s_to_first_token=it.prefill_us / 1e6,
        stage_ms={name: us / 1e3 for name, us in it.slowest._asdict().items()},
        chunk_ms={name: us / 1e3 for name, us in it.last_chunk._asdict().items()},
        memory=SweepMemory(
            static_bytes=static, weights_bytes=it.weight_bytes, pools_bytes=it.pool_bytes, room_tokens=it.tokens
        ),
    )


def _of_contexts(asked: SweepAsked, geometry: ModelGeometry, kernels: KernelTimes) -> list[str]:
    longest, notes = max(asked.contexts), []
    if longest > geometry.max_context_tokens:
        notes.append(f"Contexts of more than {geometry.max_context_tokens} tokens are longer than the model's own.")
    if longest > kernels.most_keys:
        most = count_words(int(kernels.most_keys))
        notes.append(f"The fits of the indexer end at {most} keys and are continued beyond{_beyond(kernels)}.")
    return notes


def _beyond(kernels: KernelTimes) -> str:
    """How far off the continued fit of a decode step is where it was measured, with the fewest requests."""
    few = [it for it in selections(kernels.runs) if it.work.keys > kernels.most_keys and it.work.rows <= FEW]
    too_low = {it.us / kernels.us(it.op, it.work): it for it in few if it.us > kernels.us(it.op, it.work)}
    if not too_low:
        return ""
    it = too_low[max(too_low)]
    work = f"{count(int(it.work.rows), 'request')} of {count_words(int(it.work.keys))} keys"
    figures = f"{kernels.us(it.op, it.work):.1f} us predicted, {it.us:.1f} measured"
    return f"; with one or two requests a rank they are too low there: {figures} for {work}"
