"""What `dsa doctor` finds of the machine, its libraries, the settings and the environment."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonschema import Draft202012Validator

import dsa_config
import dsa_exec
from dsa_config import DSASettings, TooLate, settings
from dsa_config.declared import settings_of
from dsa_config.tools import c_environment
from dsa_exec import IndexKCache
from dsa_exec.cli.device_option import UnusableDevice, usable_device
from dsa_exec.cli.doctor import command, examination, machine
from dsa_exec.cli.doctor.examination import examine
from dsa_exec.cli.doctor.machine import UnknownArchitecture, assumed_capabilities
from dsa_exec.cli.doctor.report import DoctorReport
from dsa_exec.cli.doctor.show import show
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.vendors import Library, Missing

CPU = torch.device("cpu")
SCHEMA = Path(dsa_exec.__file__).parents[1] / "schemas" / "doctor.schema.json"


def troubles(report: DoctorReport) -> list[tuple[str, str, str]]:
    return [(it.severity, it.kind, it.name) for it in report.troubles]


def check_against_schema(report: DoctorReport) -> None:
    """The report as JSON is what the committed schema describes, and holds no number that JSON has no word for."""
    document = json.loads(json.dumps(report.model_dump(mode="json"), allow_nan=False))
    Draft202012Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(document)


def with_vendors(**vendors: Library | Missing) -> Capabilities:
    return Capabilities("cuda", "sm90", torch.__version__, "3.6.0", multiprocessors=132, vendors=vendors)


def test_the_machine_and_its_software():
    """Device, architecture, memory, and the versions of what it is used with; nothing is wrong with the defaults."""
    report = examine(CPU)
    it = report.machine
    assert (it.device, it.arch, it.is_hip, it.multiprocessors) == ("cpu", "cpu", False, 0)
    assert it.total_bytes is not None
    assert it.free_bytes is not None
    assert 0 < it.free_bytes <= it.total_bytes
    assert (it.torch, it.triton) == (torch.__version__, capabilities(CPU).triton_version)
    assert it.python == ".".join(map(str, sys.version_info[:3]))
    assert report.version == dsa_config.__version__
    assert report.assumed is None
    assert (report.settings, report.unreadable, report.troubles) == ([], [], [])
    check_against_schema(report)


def test_a_device_that_does_not_tell_its_memory(monkeypatch):
    """It is told as a warning, and the rest is reported."""

    def fails(_device: torch.device) -> None:
        raise NotImplementedError("no memory here\nat all")

    monkeypatch.setattr(machine, "memory_reading", fails)
    report = examine(CPU)
    assert (report.machine.total_bytes, report.machine.free_bytes, report.machine.reusable_bytes) == (None,) * 3
    assert report.troubles[0].message == "cpu does not tell its memory: no memory here"
    assert troubles(report) == [("warning", "accelerator", "torch")]
    check_against_schema(report)


def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch):
    """What torch says of it as a warning, such as a driver that is too old."""

    def is_available() -> bool:
        warnings.warn("CUDA initialization: the driver is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    report = examine()
    assert report.machine.device == "cpu"
    assert report.troubles[0].message == "CUDA initialization: the driver is too old"
    assert [it[1] for it in troubles(report)] == ["accelerator"]


def test_gpus_are_listed(monkeypatch):
    """All that torch can use, each with name, architecture and memory."""
    properties = SimpleNamespace(name="Accel 9", total_memory=2**30)
    hw = Capabilities("cuda", "sm90", torch.__version__, None, multiprocessors=7)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(machine, "capabilities", lambda device: hw)
    found, _ = machine.machine(CPU, machine.gpus())
    assert [(it.device, it.name, it.arch, it.multiprocessors) for it in found.accelerators] == [
        ("cuda:0", "Accel 9", "sm90", 7),
        ("cuda:1", "Accel 9", "sm90", 7),
    ]
    assert (found.triton, found.triton_is_interpreted) == (None, False)


def test_libraries_with_version_generation_and_place():
    """A usable one has all of it; another the reason why it cannot be used."""
    fake = SimpleNamespace(__file__="/opt/deep_gemm/__init__.py")
    report = examine(
        assume=with_vendors(
            deep_gemm=Library("deep_gemm", "sgl-deep-gemm", "0.1.4", 1, fake),
            flash_mla=Missing("flash_mla", "the module flash_mla at /x has no flash_mla_sparse_fwd"),
            aiter=Missing("aiter", "aiter is installed, and its import fails: ImportError: no libamdhip64", True),
        )
    )
    assert report.libraries[0].model_dump() == {
        "name": "deep_gemm",
        "usable": True,
        "distribution": "sgl-deep-gemm",
        "version": "0.1.4",
        "generation": 1,
        "file": "/opt/deep_gemm/__init__.py",
        "reason": None,
    }
    assert [(it.name, it.usable) for it in report.libraries[1:]] == [("flash_mla", False), ("aiter", False)]
    (warning,) = report.troubles  # one that is not there, or another of the same name, is nothing wrong
    assert (warning.kind, warning.name) == ("broken-library", "aiter")
    assert warning.message.endswith("its import fails: ImportError: no libamdhip64")
    check_against_schema(report)


def test_a_triton_that_cannot_be_imported(monkeypatch):
    """It is told, and the rest is reported."""

    def fails() -> bool:
        raise ImportError("libtriton.so: undefined symbol")

    monkeypatch.setattr(machine, "is_interpreted", fails)
    report = examine(CPU)
    assert troubles(report) == [("warning", "broken-library", "triton")]
    assert "its import fails: ImportError: libtriton.so: undefined symbol" in report.troubles[0].message
    assert not report.machine.triton_is_interpreted


@pytest.mark.parametrize(
    ("arch", "kind", "is_hip", "multiprocessors"),
    [
        ("sm90", "cuda", False, 132),
        ("sm100", "cuda", False, 148),
        ("sm120", "cuda", False, 0),
        ("gfx942", "cuda", True, 304),
        ("gfx950", "cuda", True, 256),
        ("gfx90a", "cuda", True, 0),
        ("gfx1250", "cuda", True, 0),
        ("cpu", "cpu", False, 0),
    ],
)
def test_hardware_by_name(arch, kind, is_hip, multiprocessors):
    """NVIDIA's and AMD's names; torch and Triton are those of the process."""
    hw = assumed_capabilities(arch)
    assert (hw.device_type, hw.arch, hw.is_hip, hw.multiprocessors) == (kind, arch, is_hip, multiprocessors)
    here = capabilities(CPU)
    assert (hw.torch_version, hw.triton_version) == (here.torch_version, here.triton_version)
    report = examine(CPU, assume=hw)
    assert report.assumed is not None
    assert report.assumed.model_dump() == {"arch": arch, "is_hip": is_hip, "multiprocessors": multiprocessors}
    assert report.machine.arch == "cpu"
    check_against_schema(report)


@pytest.mark.parametrize("name", ["nonsense", "meta", "cuda:99"])
def test_a_device_that_is_none(name):
    """A sentence with the option, what was given, and what torch says of it."""
    with pytest.raises(UnusableDevice, match=f"--device {name}: .") as caught:
        usable_device(name)
    assert (caught.value.device, "\n" in caught.value.reason) == (name, False)


@pytest.mark.parametrize("arch", ["", "hopper", "sm9", "sm90x", "SM90", "gfx", "cuda", "gfx94g"])
def test_no_hardware_of_that_name(arch):
    """A sentence with the name, and what is wanted."""
    with pytest.raises(UnknownArchitecture, match=f"--assume {arch}: is no architecture; wanted one such as sm90"):
        assumed_capabilities(arch)


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
def test_what_config_check_finds_is_found(monkeypatch):
    """Slips, old names and conflicts, each as `dsa config check` tells it; errors come first."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    monkeypatch.setenv("SGLANG_DSA_HIP_DISABLE_PRESHUFFLE", "1")
    monkeypatch.setenv("SGLANG_NSA_HIP_DISABLE_PRESHUFFLE", "0")
    monkeypatch.setenv("SGLANG_DSA_FUSE_TPOK", "1")
    report = examine(CPU)
    assert troubles(report) == [
        ("error", "conflict", "SGLANG_DSA_HIP_DISABLE_PRESHUFFLE SGLANG_NSA_HIP_DISABLE_PRESHUFFLE"),
        ("warning", "deprecated-name", "SGLANG_NSA_FUSE_TOPK"),
        ("warning", "deprecated-name", "SGLANG_NSA_HIP_DISABLE_PRESHUFFLE"),
        ("warning", "unknown-name", "SGLANG_DSA_FUSE_TPOK"),
    ]
    assert [(it.name, it.value, it.origin) for it in report.settings] == [
        ("fuse_topk", False, "environment variable SGLANG_NSA_FUSE_TOPK"),
        ("hip_disable_preshuffle", True, "environment variable SGLANG_DSA_HIP_DISABLE_PRESHUFFLE"),
    ]
    assert (report.errors, report.warnings) == (1, 3)
    assert command.exit_code(report) == 2
    check_against_schema(report)


@pytest.mark.parametrize("setting", settings_of(DSASettings).values(), ids=lambda it: it.name)
def test_no_bad_value_is_the_end(setting, monkeypatch):
    """Whatever setting cannot be read, the report is whole and the setting is an error in it."""
    monkeypatch.setenv(setting.variable, "\udcff no value")
    report = examine(CPU)
    assert ("error", "bad-value", setting.variable) in troubles(report)
    assert [it.name for it in report.unreadable] == [setting.name]
    assert all(op.calls for op in report.ops)
    check_against_schema(report)


def test_a_change_that_came_too_late_is_told(monkeypatch):
    """In a process that has allocated a cache: the format changed afterwards, which the cache does not follow."""
    assert settings.index_k_format == "fp8"
    cache = IndexKCache.allocate(1, device="cpu", model_dtype=torch.bfloat16)
    with pytest.warns(TooLate):
        settings.set(index_k_format="model")
    report = examine(CPU)
    assert cache.layout.format == "fp8"
    assert troubles(report) == [("warning", "too-late", "index_k_format")]
    assert "too late: an index-K cache of 64 slots was allocated at" in report.troubles[0].message
    assert troubles(examine(CPU)) == troubles(report)  # to ask does not count as an allocation


@pytest.mark.skipif(sys.platform != "linux", reason="the environment of C is looked at on Linux alone")
def test_the_environment_of_c_is_compared(monkeypatch):
    """What a library set through C, and our settings do not see; with the setting that it is a name of."""
    monkeypatch.setenv("SGLANG_USE_AITER", "0")
    os.putenv("SGLANG_USE_AITER", "1")
    report = examine(CPU)
    assert troubles(report) == [("warning", "environment-differs", "SGLANG_USE_AITER")]
    assert report.troubles[0].message == "SGLANG_USE_AITER is '0' in os.environ, and '1' for libraries that call getenv"
    (found,) = report.c_environment.differences
    assert found.model_dump() == {"name": "SGLANG_USE_AITER", "setting": "use_aiter", "in_python": "0", "in_c": "1"}
    assert report.c_environment.compared > len(settings_of(DSASettings))
    check_against_schema(report)


def test_where_the_environment_of_c_is_not_looked_at(monkeypatch):
    """That is said, and is no difference and nothing wrong."""
    monkeypatch.setattr(c_environment, "c_environment", lambda: None)
    report = examine(CPU)
    assert not report.c_environment.looked_at
    assert "it is not known how to look at it" in str(report.c_environment.why_not)
    assert (report.c_environment.differences, report.troubles) == ([], [])
    check_against_schema(report)


def test_a_defect_of_a_part_is_no_end(monkeypatch, capsys):
    """What cannot be worked out is an error, and all the rest is reported, as JSON and as text."""

    def fails(*_: object) -> None:
        raise ZeroDivisionError("by pages")

    for part in ("step_decisions", "index_pages", "read_otherwise", "compared_environment"):
        monkeypatch.setattr(examination, part, fails)
    report = examine(CPU)
    assert [(it.severity, it.kind) for it in report.troubles] == [("error", "not-asked")] * 4
    assert report.troubles[0].message == "decisions of a step: could not be worked out: ZeroDivisionError: by pages"
    assert (report.steps, report.index_pages, report.c_environment) == ([], None, None)
    assert all(op.calls for op in report.ops)
    check_against_schema(report)
    show(report)
    assert capsys.readouterr().out.endswith("4 errors\n")


def test_exit_codes():
    """0 for nothing, 1 for warnings only, 2 for errors."""
    clean = examine(CPU)
    assert command.exit_code(clean) == 0
    assert command.exit_code(clean.model_copy(update={"warnings": 1})) == 1
    assert command.exit_code(clean.model_copy(update={"errors": 1, "warnings": 3})) == 2
