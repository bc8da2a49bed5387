"""Works out the whole report, in a command or inside a running engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

import dsa_config
from dsa_exec.cli.doctor.choices import op_choices
from dsa_exec.cli.doctor.environment import compared_environment, read_otherwise
from dsa_exec.cli.doctor.index_pages import index_pages
from dsa_exec.cli.doctor.machine import assumption, gpu_is_usable, gpus, libraries, machine
from dsa_exec.cli.doctor.other_backends import told
from dsa_exec.cli.doctor.report import CallSizes, DoctorReport, Trouble, UnreadableSetting
from dsa_exec.cli.doctor.settings_state import settings_state
from dsa_exec.cli.doctor.steps import step_decisions
from dsa_exec.cli.doctor.typical_calls import Sizes, typical_work
from dsa_exec.core.hardware import Capabilities, assumed, capabilities

Found = TypeVar("Found")


def examine(
    device: torch.device | None = None, *, assume: Capabilities | None = None, sizes: Sizes | None = None
) -> DoctorReport:
    """Look at the machine, the libraries, the settings and what would run each op, as of now.

    Nothing is run, and nothing of size is allocated; vendor libraries are imported. Asks the driver for free memory, so
    not while a graph is captured.

    Args:
        device: to look at; the GPU if torch can use one, else the CPU.
        assume: work out the choices for this hardware instead.
        sizes: of the typical calls.
    """
    has_gpu, troubles = gpu_is_usable()
    if device is None:
        device = torch.device("cuda" if has_gpu else "cpu")
    if device == torch.device("cuda"):
        device = torch.device("cuda", torch.cuda.current_device())
    sizes = sizes or Sizes()
    facts, found = machine(device, gpus() if has_gpu else [])
    troubles += found
    hw = capabilities(device) if assume is None else assume
    vendors, found = libraries(hw)
    troubles += found
    state = settings_state()
    troubles += state.troubles()
    with state.defaults_for_unreadable(), assumed(hw):
        ops, found = op_choices(hw, typical_work(sizes), state.explanations, state.unreadable)
        troubles += found
        steps, found = _part("decisions of a step", lambda: step_decisions(hw, sizes))
        troubles += found
        pages, found = _part("pages of a new index-K cache", lambda: index_pages(hw))
        troubles += found
        _, found = _part("what others read", lambda: (None, read_otherwise(state.unreadable)))
        troubles += found
    in_c, found = _part("environment", compared_environment)
    troubles += found
    troubles.sort(key=lambda it: it.severity)  # "error" < "warning"
    severities = [it.severity for it in troubles]
    return DoctorReport(
        version=dsa_config.__version__,
        errors=severities.count("error"),
        warnings=severities.count("warning"),
        troubles=troubles,
        machine=facts,
        assumed=None if assume is None else assumption(assume),
        libraries=vendors,
        settings=state.changed(),
        unreadable=[UnreadableSetting(name=name, why=str(error)) for name, error in state.unreadable.items()],
        sizes=CallSizes(
            heads=list(sizes.heads),
            index_heads=sizes.index_heads,
            next_n=list(sizes.next_n),
            batch=sizes.batch,
            rows=sizes.rows,
            context=sizes.context,
        ),
        ops=ops,
        steps=steps or [],
        index_pages=pages,
        c_environment=in_c,
    )


def _part(name: str, work: Callable[[], tuple[Found, list[Trouble]]]) -> tuple[Found | None, list[Trouble]]:
    """One part of the report. A defect in it must not keep the others from being told."""
    try:
        return work()
    except Exception as error:
        message = f"{name}: could not be worked out: {told(error)}"
        return None, [
            Trouble(severity="error", kind="not-asked", name=name, message=message, origin=None, suggestion=None)
        ]
