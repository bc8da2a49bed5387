"""The environment as others see it: libraries written in C, and those that read a variable of ours themselves."""

from __future__ import annotations

import sys
from collections.abc import Collection

from dsa_config import DSASettings
from dsa_config.declared import settings_of
from dsa_config.tools.c_environment import Difference, compare_environments, python_environment
from dsa_exec.cli.doctor.report import CEnvironment, EnvironmentDifference, Trouble
from dsa_exec.core.aiter_environment import aiter_environment_differences


def compared_environment() -> tuple[CEnvironment, list[Trouble]]:
    """Compare it with `os.environ`, as of now: vendor libraries that were imported may have changed it."""
    compared = compare_environments(DSASettings)
    if compared is None:
        why_not = f"on {sys.platform} it is not known how to look at it"
        return CEnvironment(looked_at=False, why_not=why_not, compared=0, differences=[]), []
    report = CEnvironment(
        looked_at=True,
        why_not=None,
        compared=len(compared.names),
        differences=[
            EnvironmentDifference(name=it.name, setting=it.setting, in_python=it.in_python, in_c=it.in_c)
            for it in compared.differences
        ],
    )
    return report, [_trouble(it) for it in compared.differences]


def read_otherwise(unreadable: Collection[str]) -> list[Trouble]:
    """Settings about aiter whose values are not what aiter, or an engine, reads from the environment itself.

    To be called where settings that cannot be read are overridden.

    Args:
        unreadable: those.
    """
    if set(settings_of(DSASettings)) <= set(unreadable):  # for one reason, which is told
        return []
    return [
        Trouble(
            severity="warning",
            kind="read-otherwise",
            name=it.variable,
            message=str(it),
            origin=it.origin,
            suggestion=f"give {it.variable} the same meaning in the environment",
        )
        for it in aiter_environment_differences(python_environment())
        if it.setting not in unreadable
    ]


def _trouble(it: Difference) -> Trouble:
    return Trouble(
        severity="warning",
        kind="environment-differs",
        name=it.name,
        message=str(it),
        origin=f"environment variable {it.name}",
        suggestion="set it before the process starts, or through os.environ, which both sides see",
    )
