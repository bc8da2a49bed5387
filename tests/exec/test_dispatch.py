"""Choosing a backend: by name without falling back, or by itself with every refusal in words."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import dsa_exec
from dsa_config import BadValue, settings
from dsa_exec import IndexKCache, index_store, mqa_logits, record_calls, topk
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import Capabilities, assumed, capabilities
from dsa_exec.dispatch import registry, select
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.registry import backends, op_names
from dsa_exec.layouts.index_k import IndexKLayout

LOGITS = torch.tensor([[1.0, 3.0, 2.0]])
LENGTHS = torch.tensor([3], dtype=torch.int32)
WINDOWS = torch.zeros(2, dtype=torch.int32), torch.full((2,), 3, dtype=torch.int32)
MQA = torch.ones(2, 4, 8), torch.ones(3, 8), None, torch.ones(2, 4), *WINDOWS


@pytest.fixture
def picky(monkeypatch):
    """A backend that comes before torch and refuses more than one row."""

    def refuses(call, hw: Capabilities) -> str | None:
        rows = call.logits.shape[0]
        return f"rows={rows} on {hw.device_type}: this kernel takes one" if rows > 1 else None

    backend = Backend("picky", backends("topk")["torch"].run, refuses, rank=1)
    monkeypatch.setattr(select, "backends", lambda op: {"picky": backend, **registry.backends(op)})
    monkeypatch.setattr(select, "backend", lambda op, name: select.backends(op)[name])
    monkeypatch.setattr("dsa_config.declarations.backends.backend_names", lambda op: ("picky", "torch"))
    monkeypatch.setattr(select, "_said", set())
    select.forget_decisions()
    yield backend
    select.forget_decisions()


def two_rows() -> torch.Tensor:
    return topk(LOGITS.expand(2, 3).contiguous(), LENGTHS.expand(2).contiguous(), 2)


def test_auto_takes_the_first_that_does_not_refuse(picky):
    """The order is by rank; the decision tells why."""
    with record_calls() as trace:
        topk(LOGITS, LENGTHS, 2)
        two_rows()
    (first, _), (second, _) = trace.decisions.values()
    assert (first.backend.name, first.why) == ("picky", "auto: the first choice here")
    assert second.backend.name == "torch"
    assert "picky refuses: rows=2 on" in second.why


def test_auto_says_once_that_it_falls_back(picky, caplog):
    """One warning for the same refusal, however many calls; every decision under debug_log_decisions."""
    with caplog.at_level(logging.INFO, "dsa_exec.dispatch"):
        two_rows()
        two_rows()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "topk falls back to torch (auto: picky refuses: rows=2" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "dsa_exec.dispatch"), settings.override(debug_log_decisions=True):
        two_rows()
        two_rows()
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]


def test_a_named_backend_never_falls_back(picky):
    """The refusal is the error, with the value in it."""
    with settings.override(topk_backend="picky"):
        assert topk(LOGITS, LENGTHS, 2).tolist() == [[1, 2]]
        with pytest.raises(UnsupportedCall, match=r"topk: picky: rows=2 on \w+: this kernel takes one .*=picky"):
            two_rows()


def test_the_choice_is_read_on_every_call(picky, monkeypatch):
    """Environment, set and override each change the backend of the next call."""

    def used() -> str:
        with record_calls() as trace:
            topk(LOGITS, LENGTHS, 2)
        ((_, name),) = trace.decisions
        return name

    names = [used()]
    monkeypatch.setenv("SGLANG_DSA_TOPK_BACKEND", "torch")
    names.append(used())
    settings.set(topk_backend="picky")
    names.append(used())
    with settings.override(topk_backend="torch"):
        names.append(used())
    names.append(used())
    assert names == ["picky", "torch", "picky", "torch", "picky"]


def test_when_all_refuse_every_refusal_is_told(monkeypatch):
    """The error names each backend with its sentence."""
    never = Backend("never", lambda call: None, lambda call, hw: "k=2 is not its number")
    monkeypatch.setattr(select, "backends", lambda op: {"never": never, "nor": dataclasses.replace(never, name="nor")})
    with pytest.raises(UnsupportedCall, match="topk: never: k=2 is not its number; nor: k=2") as caught:
        topk(LOGITS, LENGTHS, 2)
    assert caught.value.refusals == (("never", "k=2 is not its number"), ("nor", "k=2 is not its number"))


def test_an_unknown_backend_is_a_bad_value(monkeypatch):
    """A name without a file is refused where it is given, with the names that there are."""
    with pytest.raises(BadValue, match="one of auto, aiter, gluon, torch, triton"):
        settings.override(topk_backend="deep_gem")
    monkeypatch.setenv("SGLANG_DSA_TOPK_BACKEND", "tortch")
    with pytest.raises(BadValue, match="^SGLANG_DSA_TOPK_BACKEND='tortch'.* did you mean torch"):
        topk(LOGITS, LENGTHS, 2)


def test_every_op_is_found_with_its_specification():
    """Sixteen ops, each with a torch backend, which `auto` takes last."""
    assert len(op_names()) == 16
    assert all(list(backends(op))[-1] == "torch" for op in op_names())


def test_a_backend_is_one_file(tmp_path):
    """A file dropped beside an op is found, allowed and preferred to the specification; a broken one harms itself."""
    root = Path(dsa_exec.__file__).parent.parent
    for package in ("dsa_config", "dsa_exec"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "dsa_exec/ops/topk/on_copycat.py").write_text(
        "from dsa_exec.dispatch.backend import Backend\n"
        "from dsa_exec.ops.topk.on_torch import BACKEND as TORCH\n"
        "BACKEND = Backend('copycat', TORCH.run)\n"
    )
    (tmp_path / "dsa_exec/ops/kv_store/on_broken.py").write_text("import no_such_module\n")
    program = (
        "import torch, dsa_exec\n"
        "from dsa_config import settings\n"
        "with dsa_exec.record_calls() as trace:\n"
        "    dsa_exec.topk(torch.ones(1, 3), torch.tensor([3], dtype=torch.int32), 2)\n"
        "print(list(trace.decisions))\n"
        "settings.set(kv_store_backend='torch')\n"
        "from dsa_exec.dispatch.registry import backend, backends\n"
        "print(backend('kv_store', 'torch').name)\n"
        "try:\n"
        "    backends('kv_store')\n"
        "except ModuleNotFoundError as error:\n"
        "    print('broken:', error.name)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[('topk', 'copycat')]\ntorch\nbroken: no_such_module\n", done.stderr


def test_a_backend_is_named_after_its_file(monkeypatch):
    """A BACKEND of another name than its file would be selected under one name and reported under another."""
    from dsa_exec.ops.topk import on_torch

    monkeypatch.setattr(on_torch, "BACKEND", dataclasses.replace(on_torch.BACKEND, name="other"))
    registry.backend.cache_clear()
    try:
        with pytest.raises(AttributeError, match="BACKEND is named 'other'; wanted 'torch'"):
            registry.backend("topk", "torch")
    finally:
        monkeypatch.undo()
        registry.backend.cache_clear()


def test_capabilities_of_this_machine():
    """The facts are those of torch, and are the same object every time."""
    cpu = capabilities(torch.device("cpu"))
    assert (cpu.device_type, cpu.arch, cpu.torch_version) == ("cpu", "cpu", torch.__version__)
    assert capabilities(torch.device("cpu")) is cpu
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        assert capabilities(torch.device("cuda", 0)).arch == f"sm{major}{minor}"


def test_traces_nest_and_do_not_leak():
    """The inner trace gets the inner calls, the outer one those after it; after the block nothing is recorded."""
    with record_calls() as outer:
        with record_calls() as inner:
            topk(LOGITS, LENGTHS, 2)
        assert len(inner.decisions) == 1
        assert not outer.decisions
        topk(LOGITS, LENGTHS, 2)
        assert list(outer.decisions) == [("topk", "torch")]
    topk(LOGITS, LENGTHS, 2)
    assert [count for trace in (inner, outer) for _, count in trace.decisions.values()] == [1, 1]


def test_a_trace_keeps_the_first_reason():
    """Of several decisions for the same backend the first is shown, and all are counted."""
    with record_calls() as trace:
        topk(LOGITS, LENGTHS, 2)
        with settings.override(topk_backend="torch"):
            topk(LOGITS, LENGTHS, 2)
            topk(LOGITS, LENGTHS, 2)
    ((decision, count),) = trace.decisions.values()
    assert (decision.choice, count) == ("auto", 3)


@pytest.fixture
def counted(monkeypatch):
    """Counts how often a backend is asked whether it refuses; it reads a setting for that."""
    asked = []

    def refuses(call, hw: Capabilities) -> str | None:
        asked.append((call.logits.shape, hw.arch))
        return "use_aiter is off" if not settings.use_aiter else None

    def adapts(call, hw: Capabilities) -> str:
        return f"{call.logits.shape[1]} columns padded to 64"

    backend = Backend("picky", backends("topk")["torch"].run, refuses, rank=1, adapts=adapts, reads=("use_aiter",))
    monkeypatch.setattr(select, "backends", lambda op: {"picky": backend, **registry.backends(op)})
    monkeypatch.setattr(select, "backend", lambda op, name: select.backends(op)[name])
    monkeypatch.setattr("dsa_config.declarations.backends.backend_names", lambda op: ("picky", "torch"))
    select.forget_decisions()
    yield asked
    select.forget_decisions()


def backend_of(*args, **kwargs) -> str:
    with record_calls() as trace:
        topk(*args, **kwargs)
    ((_, name),) = trace.decisions
    return name


def test_calls_alike_are_decided_once(counted):
    """The second layer's call asks no backend; another shape is another call, and each is remembered."""
    for _ in range(3):
        topk(LOGITS, LENGTHS, 2)
        two_rows()
        topk(LOGITS + 1, LENGTHS, 2)
    assert len(counted) == 2


def test_a_setting_that_is_read_in_refusing_takes_effect_at_once(counted):
    """An override changes the decision for a call that was decided already, and so does its end."""
    assert backend_of(LOGITS, LENGTHS, 2) == "torch"
    with settings.override(use_aiter=True):
        assert backend_of(LOGITS, LENGTHS, 2) == "picky"
        with settings.override(topk_backend="torch"):
            assert backend_of(LOGITS, LENGTHS, 2) == "torch"
        assert backend_of(LOGITS, LENGTHS, 2) == "picky"
    assert backend_of(LOGITS, LENGTHS, 2) == "torch"
    assert len(counted) == 2


def test_other_hardware_is_decided_anew(counted):
    """Within `assumed`, other capabilities; outside, those of the device again."""
    topk(LOGITS, LENGTHS, 2)
    with assumed(Capabilities("cuda", "sm100", "2.11", "3.6")), settings.override(topk_backend="torch"):
        assert capabilities(torch.device("cpu")).arch == "sm100"
        topk(LOGITS, LENGTHS, 2)
    with assumed(Capabilities("cuda", "gfx942", "2.11", "3.6")), settings.override(use_aiter=True):
        topk(LOGITS, LENGTHS, 2)
    topk(LOGITS, LENGTHS, 2)
    assert [arch for _, arch in counted] == ["cpu", "gfx942"]


def test_a_decision_says_what_the_backend_changes_about_the_call(counted):
    """Padding is visible in the reason."""
    with record_calls() as trace, settings.override(use_aiter=True):
        topk(LOGITS, LENGTHS, 2)
    ((decision, _),) = trace.decisions.values()
    assert decision.why == "auto: the first choice here; 3 columns padded to 64"


def test_no_more_decisions_are_kept_than_there_is_room_for(counted, monkeypatch):
    """Prefill has a shape for every number of tokens: what is kept does not grow without end."""
    monkeypatch.setattr(select, "MOST_REMEMBERED", 4)
    for columns in range(3, 13):
        topk(torch.zeros(1, columns), LENGTHS, 2)
    assert len(select._memory("topk").decisions) <= 4
    assert len(counted) == 10


def test_a_layout_of_a_dead_cache_is_not_taken_for_another(monkeypatch):
    """Layouts stand in a key by identity, so that what is kept keeps them alive."""
    select.forget_decisions()
    for rounds in range(50):
        cache = IndexKCache(
            torch.zeros(2, 8448 if rounds % 2 else 2112, dtype=torch.uint8),
            IndexKLayout("fp8", 64 if rounds % 2 else 16),
        )
        index_store(cache, torch.zeros(1, 128), torch.zeros(1, dtype=torch.int64))
    kept = select._memory("index_store").decisions.values()
    assert len({id(value) for it in kept for value in it.values if isinstance(value, IndexKLayout)}) == len(kept)


def test_decisions_from_many_threads_are_those_of_their_calls(counted):
    """Threads that call with shapes of their own never get each other's decision."""

    def work(number: int) -> set[str]:
        logits = torch.zeros(1, 3 + number)
        with settings.override(topk_backend="torch" if number % 2 else "auto", use_aiter=True):
            return {backend_of(logits, LENGTHS, 2) for _ in range(200)}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    assert found == [{"torch"} if number % 2 else {"picky"} for number in range(8)]


def test_transforms_of_torch_func_are_decided_each_time():
    """Under a transform tensors have no address, and there is no signature to remember."""
    slope = torch.func.grad(lambda it: mqa_logits(it, *MQA[1:]).sum())(MQA[0])
    torch.testing.assert_close(slope, torch.full_like(MQA[0], 3.0))
