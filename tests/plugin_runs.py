"""Running pytest in pytest, with our plugin as an installed one."""

from __future__ import annotations

import textwrap
from importlib.metadata import entry_points

import pytest


def plugin() -> list[str]:
    """What gives pytest our plugin where the package is not installed, and its entry point not known."""
    installed = any(point.value == "dsa_config.testing" for point in entry_points(group="pytest11"))
    return [] if installed else ["-p", "dsa_config.testing"]


def run(pytester: pytest.Pytester, body: str, *options: str, inprocess: bool = True) -> pytest.RunResult:
    """Run a test module, which starts with the usual imports; in this process, where nothing speaks against it."""
    imports = "import enum, os, unittest\nfrom typing import Literal\nimport pytest\n"
    ours = "from dsa_config import LiveSettings, live, setting, settings\n"
    pytester.makepyfile(imports + ours + textwrap.dedent(body))
    start = pytester.runpytest_inprocess if inprocess else pytester.runpytest_subprocess
    quick = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")  # whose report costs a second
    return start(*plugin(), *quick, "--strict-markers", *options)


def output(result: pytest.RunResult) -> str:
    """All that a run has printed, each line break and indent as one blank."""
    return " ".join("\n".join(result.outlines + result.errlines).split())
