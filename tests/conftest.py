"""Every test starts from declared defaults: no variable of ours set, no process value, no warning already given."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton reads it when a kernel is defined

from dsa_config import DSASettings, settings
from dsa_config.declared import settings_of
from dsa_config.lifecycle import forget_warnings


@pytest.fixture(autouse=True)
def _declared_defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for declared in settings_of(DSASettings).values():
        for variable in declared.variables:
            monkeypatch.delenv(variable, raising=False)
    settings._state.moments.forget()  # of caches that fixtures of a wider scope have allocated
    settings.reset()
    forget_warnings()
    yield
    settings._state.moments.forget()
    settings.reset()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there is a GPU, leave out what runs on stand-ins of vendors' libraries.

    They take tensors of the CPU, which kernels take under Triton's interpreter: a process with a GPU does not use that.
    """
    if not torch.cuda.is_available():
        return
    reason = "stand-ins take tensors of the CPU, which kernels take where there is no GPU"
    for item in items:
        text = item.path.read_text("utf-8")
        if ("fakes" in text or "step_samples" in text) and item.get_closest_marker("gpu") is None:
            item.add_marker(pytest.mark.skip(reason=reason))
