"""Facts about the machine."""

from __future__ import annotations

import pytest
import torch

from dsa_exec.core import hardware, host_memory
from dsa_exec.core.hardware import MemoryReading, memory_reading

CPU = torch.device("cpu")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A folder that stands for the one where control groups are told."""
    monkeypatch.setattr(host_memory, "CGROUP", tmp_path)
    return tmp_path


def test_triton_may_come_in_another_package(monkeypatch):
    """torch for ROCm brings pytorch-triton-rocm; without any of the names there is none."""
    for installed, found in (({"pytorch-triton-rocm": "3.5.1"}, "3.5.1"), ({}, None), ({"triton": "3.6.0"}, "3.6.0")):
        monkeypatch.setattr(hardware, "installed_version", installed.get)
        hardware._capabilities.cache_clear()
        assert hardware._capabilities(CPU).triton_version == found
    hardware._capabilities.cache_clear()


def write(folder, **files: object) -> None:
    """Write `memory.<name>` for each name, where version 2 tells it."""
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")


def test_a_container_has_what_its_limit_leaves(groups):
    """A control group's limit and use bound what the machine has; a group without a limit bounds nothing."""
    machine = memory_reading(CPU)
    write(groups, max=1000, current=600)
    assert memory_reading(CPU) == MemoryReading(1000, 400)
    write(groups, current=1600)
    assert memory_reading(CPU).free_bytes == 0
    write(groups, max="max")
    assert memory_reading(CPU).total_bytes >= machine.total_bytes


def test_pages_of_files_that_can_be_dropped_are_not_used(groups):
    """What a container's use counts for files that were read is free, never more than is used."""
    write(groups, max=1000, current=600, stat="anon 100\nfile 450\ninactive_file 250\nx")
    assert memory_reading(CPU) == MemoryReading(1000, 650)
    write(groups, stat="inactive_file 601")
    assert memory_reading(CPU) == MemoryReading(1000, 1000)


def test_control_groups_of_version_1(groups):
    """The same under their older names; a limit beyond the machine bounds nothing."""
    older = groups / "memory"
    older.mkdir()
    write(older, limit_in_bytes=1000, usage_in_bytes=600)
    write(older, stat="inactive_file 9\ntotal_inactive_file 50")
    assert memory_reading(CPU) == MemoryReading(1000, 450)
    write(older, limit_in_bytes=2**63 - 4096)
    assert 1000 < memory_reading(CPU).total_bytes < 2**60


def test_available_memory_is_read_in_kib(groups, tmp_path, monkeypatch):
    """Of /proc/meminfo the line that counts what can be reclaimed, whose unit is 1024 bytes."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree:  300 kB\nMemAvailable:  5000 kB\n")
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "meminfo")
    assert memory_reading(CPU).free_bytes == 5000 * 1024


def test_a_machine_without_proc(monkeypatch, tmp_path):
    """Where /proc/meminfo is not there, the system's own count of free pages is taken."""
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "nothing")
    reading = memory_reading(CPU)
    assert 0 < reading.free_bytes <= reading.total_bytes
