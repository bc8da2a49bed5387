"""Facts about the machine."""

from __future__ import annotations

import pytest
import torch

from dsa_exec.core import hardware, host_memory
from dsa_exec.core.hardware import Capabilities, MemoryReading, memory_reading, total_memory_bytes

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


GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 1000 bytes as torch would tell of it: 300 free, 500 reserved by the allocator, 350 of those in use."""
    asked = []

    def driver(device):
        asked.append(device)
        return 300, 1000

    numbers = {"reserved_bytes": 500, "active_bytes": 350, "allocated_bytes": 320}
    held = {name: {"all": {"current": number}} for name, number in numbers.items()}
    monkeypatch.setattr(torch.cuda, "mem_get_info", driver)
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: held)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0, raising=False)
    return asked


def test_T9_what_the_allocator_could_give_out_again_counts(gpu):
    """T9: reserved and not active; what another stream may still read is active, though nobody owns it."""
    reading = memory_reading(GPU)
    assert reading == MemoryReading(1000, 300, 150)
    assert reading.available_bytes == 450
    assert gpu == [GPU]


@pytest.mark.parametrize(("share", "free"), [(1.0, 300), (0.9, 300), (0.7, 200), (0.4, 0)])
def test_what_the_process_may_take_bounds_what_is_free(gpu, monkeypatch, share, free):
    """Where torch's allocator has a limit of its own, the rest of the device is not free for this process."""
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: share, raising=False)
    assert memory_reading(GPU) == MemoryReading(1000, free, 150)


def test_a_device_that_nobody_has_used_yet(gpu, monkeypatch):
    """The allocator holds nothing, and has no limit to be asked for; an older torch has none that it tells."""
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: {})
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert memory_reading(GPU) == MemoryReading(1000, 300, 0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.delattr(torch.cuda, "get_per_process_memory_fraction")
    assert memory_reading(GPU) == MemoryReading(1000, 300, 0)


def test_the_total_of_a_container_needs_no_look_at_its_use(groups):
    """The limit bounds it; without one, or beyond the machine, the machine does."""
    machine = total_memory_bytes(CPU)
    write(groups, max=1000, current=600)
    assert total_memory_bytes(CPU) == 1000 == memory_reading(CPU).total_bytes
    write(groups, max="max")
    assert total_memory_bytes(CPU) >= machine
    write(groups, max=2**62)
    assert total_memory_bytes(CPU) == memory_reading(CPU).total_bytes


def test_only_rocm_bounds_a_tensor():
    """2 GiB less a byte: stores beyond go a way on which kernels abort in the compiler."""
    facts = ("cuda", "gfx942", "2.11.0", "3.6.0")
    assert Capabilities(*facts, is_hip=True).most_tensor_bytes == 2**31 - 1
    assert Capabilities(*facts).most_tensor_bytes is None
