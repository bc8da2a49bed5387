"""Fresh memory is poisoned in every conformance test. `--record FILE` writes down what passed on which device, and
`--ops topk,others` runs the tests of some ops only (`others` stands for tests that are of no single op).
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from conformance_suite import DEVICE, poison

from dsa_exec.core.hardware import capabilities
from dsa_exec.core.vendors import installed_distributions

_outcomes: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))


@pytest.fixture(autouse=True)
def _fresh_memory_is_poisoned(monkeypatch):
    for home, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (torch.Tensor, "new_empty"),
        (torch.Tensor, "new_empty_strided"),
    ):
        monkeypatch.setattr(home, name, _poisoned(getattr(home, name)))


def _poisoned(make):
    def fresh(*args, **kwargs):
        return poison(make(*args, **kwargs))

    return fresh


def pytest_addoption(parser):
    parser.addoption("--record", type=Path, help="write which backends passed which cases, as JSON")
    parser.addoption("--ops", type=lambda text: text.split(","), help="only the tests of these ops")


def pytest_collection_modifyitems(config, items):
    ops = config.getoption("--ops")
    if ops is not None:
        of = [getattr(getattr(item, "callspec", None), "params", {}).get("op", "others") for item in items]
        config.hook.pytest_deselected(items=[item for item, op in zip(items, of, strict=True) if op not in ops])
        items[:] = [item for item, op in zip(items, of, strict=True) if op in ops]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if {"op", "backend", "case"} <= parameters.keys() and (report.when == "call" or report.failed):
        outcomes = _outcomes[parameters["op"], parameters["backend"]]
        if report.skipped:
            sentence = str(report.longrepr[2]).removeprefix("Skipped: ")
            outcomes["not applicable" if sentence.startswith("not applicable") else "refused"].add(sentence)
        else:
            outcomes[report.outcome].add(item.name)
    return report


def pytest_sessionfinish(session):
    path = session.config.getoption("--record")
    if path is None:
        return
    hw = capabilities(DEVICE)
    record = {
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu",
        "arch": hw.arch,
        "torch": hw.torch_version,
        "triton": hw.triton_version,
        "vendors": installed_distributions(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "backends": [
            {
                "op": op,
                "backend": backend,
                "passed": len(outcomes["passed"]),
                "failed": sorted(outcomes["failed"]),
                "refused": sorted(outcomes["refused"]),
            }
            for (op, backend), outcomes in sorted(_outcomes.items())
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
