"""Facts about the machine."""

from __future__ import annotations

import torch

from dsa_exec.core import hardware
from dsa_exec.core.hardware import MemoryReading, memory_reading

CPU = torch.device("cpu")


def test_a_container_has_what_its_limit_leaves(tmp_path, monkeypatch):
    """A control group's limit and use bound what the machine has; a group without a limit bounds nothing."""
    machine = memory_reading(CPU)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory_reading(CPU) == MemoryReading(1000, 400)
    (tmp_path / "memory.current").write_text("1600\n")
    assert memory_reading(CPU).free_bytes == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_reading(CPU).total_bytes >= machine.total_bytes


def test_a_machine_without_proc(monkeypatch):
    """Where /proc/meminfo is not there, the system's own count of free pages is taken."""
    monkeypatch.setattr(hardware, "_meminfo_bytes", lambda _: None)
    reading = memory_reading(CPU)
    assert 0 < reading.free_bytes <= reading.total_bytes
