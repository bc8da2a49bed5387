"""The pytest plugin: fixtures for settings, a marker that runs a test over combinations, and a detector of leaks."""

from __future__ import annotations

from unittest import TestCase

import pytest

from dsa_config.testing.fixtures import (
    _settings_matrix,
    _settings_moments,
    settings_load,
    settings_override,
    settings_set,
)
from dsa_config.testing.leaks import LeakDetector, SettingsLeak

__all__ = [
    "SettingsLeak",
    "_settings_matrix",  # pytest finds fixtures by name in the plugin's module
    "_settings_moments",
    "pytest_addoption",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_pycollect_makeitem",
    "settings_load",
    "settings_override",
    "settings_set",
]

MARKER = "settings_matrix"
MODES = ("error", "warn", "off")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--dsa-leaks` and the ini option `dsa_leaks`."""
    what = "what to do with a test that leaves settings changed behind"
    group = parser.getgroup("dsa", "settings that are read when they are used")
    group.addoption("--dsa-leaks", choices=MODES, default=None, help=f"{what} (default: the ini option, or error)")
    parser.addini("dsa_leaks", f"{what}: {', '.join(MODES)}", default="error")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and watch for leaks unless that is off.

    Raises:
        pytest.UsageError: the ini option is none of its choices.
    """
    config.addinivalue_line(
        "markers",
        f'{MARKER}("fuse_topk", kv_format=["fp8", "model"]): run the test with every combination of these settings\' '
        f"values; a bare name stands for all values of a boolean or a choice",
    )
    mode = config.getoption("--dsa-leaks") or config.getini("dsa_leaks")
    if mode not in MODES:
        raise pytest.UsageError(f"dsa_leaks={mode!r} in {config.inipath}: wanted one of {', '.join(MODES)}")
    if mode != "off":
        config.pluginmanager.register(LeakDetector(fatal=mode == "error"), "dsa_leaks")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each combination."""
    if any(metafunc.definition.iter_markers(MARKER)):
        from dsa_config.testing.matrix import parametrize

        parametrize(metafunc)


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, obj: object) -> None:
    """Refuse the marker where it could have no effect.

    Raises:
        pytest.Collector.CollectError: it is on a unittest.TestCase, whose methods pytest cannot multiply.
    """
    if isinstance(obj, type) and issubclass(obj, TestCase):
        from dsa_config.testing.matrix import refuse_on_test_case

        refuse_on_test_case(collector, obj)
