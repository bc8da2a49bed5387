"""Whether aiter's paged kernel for preshuffled keys can run: every condition, in words, whatever else holds."""

from __future__ import annotations

import itertools
import types

import pytest
from fakes.aiter import Build, machine, rocm

from dsa_exec.core.aiter_releases import RELEASES, version_of
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.preshuffle import preshuffle_conditions, refuses_preshuffle
from dsa_exec.core.vendors import Library, Missing

ON = {"use_aiter": True, "hip_disable_preshuffle": False, "aiter_enable_aot_gluon_pa_mqa_logits": False}
NAMES = [
    "HIP",
    "use_aiter",
    "hip_disable_preshuffle",
    "aiter",
    "architecture",
    "Triton or ahead-of-time kernel",
    "aiter's own demands",
    "paged kernel",
]
FLAGS = list(itertools.product([False, True], repeat=3))
TRITONS = ["3.3.1", "3.4.0", "3.5.0a0", "3.5.0rc1", "3.5.0.dev20250901", "3.5.0", "3.5.0+rocm7.0", "3.5.1", "3.6.0"]
SINCE_3_5 = {"3.5.0", "3.5.0+rocm7.0", "3.5.1", "3.6.0"}


def expected(arch: str, triton: str, aiter: str | None, flags: tuple[bool, bool, bool]) -> bool:
    """Whether the kernel can run, put together anew from what is written about it."""
    use, disabled, ahead_of_time = flags
    if not use or disabled or arch not in {"gfx942", "gfx950"}:
        return False
    if not ahead_of_time and triton not in SINCE_3_5:
        return False
    if aiter == "0.1.20":  # it knows no Triton from 3.5 to 3.6, and no ahead-of-time kernel is for 3.4
        return triton == "3.6.0" or (ahead_of_time and triton == "3.3.1")
    if aiter == "0.1.13":
        return not (ahead_of_time and triton == "3.4.0")
    return True


def conditions(hw: Capabilities, **flags: bool):
    return {it.name: it for it in preshuffle_conditions(hw, **{**ON, **flags})}


@pytest.mark.parametrize("aiter", ["0.1.13", "0.1.20", None])
@pytest.mark.parametrize("triton", TRITONS)
@pytest.mark.parametrize("arch", ["gfx942", "gfx950", "gfx90a"])
@pytest.mark.parametrize("flags", FLAGS, ids=lambda it: "".join("-+"[flag] for flag in it))
def test_every_combination(arch, triton, aiter, flags):
    """Architecture, Triton, aiter and all three flags: preshuffled exactly where it is written that it can be."""
    hw, _ = machine(arch, triton, Build(aiter), ahead_of_time=flags[2])
    failed = refuses_preshuffle(hw, **dict(zip(ON, flags, strict=True)))
    assert (failed is None) == expected(arch, triton, aiter, flags)


@pytest.mark.parametrize("flags", FLAGS)
def test_off_rocm_nothing_else_is_asked(flags):
    """On a CUDA device the first condition fails, whatever the flags; the library is not looked for."""

    class Untouched(dict):
        def __missing__(self, name):
            raise AssertionError(name)

    hw = Capabilities("cuda", "sm90", "2.11.0", "3.6.0", vendors=Untouched())
    failed = refuses_preshuffle(hw, **dict(zip(ON, flags, strict=True)))
    assert failed is not None
    assert str(failed) == "HIP: no ROCm, sm90; wanted a device of ROCm"


def test_the_chain_tells_each_condition():
    """Names in order, each with what was found; nothing is wanted in words where it holds."""
    hw, _ = machine("gfx950", "3.6.0")
    chain = preshuffle_conditions(hw, **ON)
    assert [it.name for it in chain] == NAMES
    assert all(it.holds for it in chain)
    assert [str(it) for it in chain][2:6] == [
        "hip_disable_preshuffle: off",
        "aiter: aiter (amd-aiter 0.1.20, interface generation 1)",
        "architecture: gfx950",
        "Triton or ahead-of-time kernel: Triton 3.6.0",
    ]


@pytest.mark.parametrize(
    ("changes", "flags", "name", "words"),
    [
        ({}, {"use_aiter": False}, "use_aiter", "off; wanted on (SGLANG_USE_AITER=1)"),
        (
            {},
            {"hip_disable_preshuffle": True},
            "hip_disable_preshuffle",
            "on; wanted off (SGLANG_DSA_HIP_DISABLE_PRESHUFFLE=0)",
        ),
        ({"arch": "gfx90a"}, {}, "architecture", "gfx90a; wanted gfx942, gfx950 or gfx1250"),
        (
            {"triton": "3.5.0rc1"},
            {},
            "Triton or ahead-of-time kernel",
            "Triton 3.5.0rc1; wanted Triton 3.5.0 or newer, no pre-release of it, or AITER_ENABLE_AOT_GLUON_PA",
        ),
        ({"triton": None}, {}, "Triton or ahead-of-time kernel", "Triton is not installed; wanted Triton 3.5.0 or"),
        ({"triton": "nightly"}, {}, "Triton or ahead-of-time kernel", "Triton nightly; wanted"),
        (
            {"triton": "3.5.1"},
            {},
            "aiter's own demands",
            "aiter 0.1.20 on gfx950 with Triton 3.5.1; wanted Triton 3.6.0 or newer: from aiter 0.1.15 on its Gluon",
        ),
        (
            {"triton": "3.4.0"},
            {"aiter_enable_aot_gluon_pa_mqa_logits": True},
            "aiter's own demands",
            "Triton 3.4.0; wanted Triton before 3.4.0, or from 3.5.0 on, for ahead-of-time kernels",
        ),
        ({"arch": "gfx1250", "build": "0.1.13"}, {}, "aiter's own demands", "wanted aiter 0.1.16 or newer"),
    ],
)
def test_the_first_failure_names_what_failed(changes, flags, name, words):
    """What was found and what is wanted, with the variable that would change it."""
    hw, _ = machine(**{"triton": "3.6.0", **changes})
    failed = refuses_preshuffle(hw, **{**ON, **flags})
    assert failed is not None
    assert failed.name == name
    assert words in str(failed)


def test_t4_a_pre_release_of_triton_is_not_its_release():
    """T4: the ancestor compared base versions, so that 3.5.0rc1 and nightly builds counted as 3.5.0."""
    for triton in ("3.5.0rc1", "3.5.0a0", "3.5.0b2", "3.5.0.dev20250901", "3.5.0.dev1+git123"):
        assert refuses_preshuffle(machine("gfx942", triton, "0.1.13")[0], **ON) is not None
    for triton in ("3.5.0", "3.5.0+rocm7.0", "3.5.0+gitabc", "3.5.0.post1", "3.6.0rc1"):
        assert refuses_preshuffle(machine("gfx942", triton, "0.1.13")[0], **ON) is None


def test_t4_an_ahead_of_time_kernel_that_is_not_there(tmp_path):
    """T4: the ancestor took the flag's word for it; aiter loads nothing else then, however new Triton is."""
    hw, library = machine("gfx950", "3.6.0", ahead_of_time=True)
    module = library.module()
    module.__file__ = str(tmp_path / "__init__.py")
    hw = rocm("gfx950", "3.6.0", Library("aiter", "amd-aiter", "0.1.20", 1, module))
    flags = {**ON, "aiter_enable_aot_gluon_pa_mqa_logits": True}
    failed = refuses_preshuffle(hw, **flags)
    assert failed is not None
    assert failed.setting == "aiter_enable_aot_gluon_pa_mqa_logits"
    assert f"is on, and there is no kernel in {tmp_path}/ops/triton/configs/paged_mqa_logits/aot; wanted" in str(failed)
    (tmp_path / "ops/triton/configs/paged_mqa_logits/aot/paged_mqa_logits_preshuffle_64x256x128_B64PFW2").mkdir(
        parents=True
    )
    assert refuses_preshuffle(hw, **flags) is None
    assert "there are kernels in" in conditions(hw, **flags)["Triton or ahead-of-time kernel"].found


@pytest.mark.parametrize("triton", ["3.4.0", "3.5.0"])
def test_t4_the_architecture_counts(triton):
    """T4: the ancestor asked for none; aiter's kernel is written for three."""
    for arch in ("gfx90a", "gfx1100", "gfx1201"):
        for ahead_of_time in (False, True):
            hw, _ = machine(arch, triton, Build(None), ahead_of_time=ahead_of_time)
            assert refuses_preshuffle(hw, **{**ON, "aiter_enable_aot_gluon_pa_mqa_logits": ahead_of_time}) is not None


def test_t27_a_broken_aiter_is_told_and_is_not_a_missing_one():
    """T27: the ancestor's probe caught everything and answered no. The words of the import are kept."""
    broken = Missing("aiter", "aiter is installed, and its import fails: OSError: libamdhip64.so.6: cannot open")
    found = conditions(rocm("gfx950", "3.6.0", broken))
    assert not found["aiter"].holds
    assert "its import fails: OSError: libamdhip64.so.6: cannot open" in str(found["aiter"])
    assert found["aiter's own demands"].found == "not known without aiter"
    assert "paged kernel" not in found


def test_t27_a_kernel_whose_import_fails_is_told():
    """T27: the part with the kernel is imported later than aiter itself; what that raises is the reason."""
    # A build of no known version: nothing is known of its demands before its import tells.
    hw, library = machine("gfx950", "3.5.0", Build("0.1.20"))
    unknown = rocm("gfx950", "3.5.0", Library("aiter", None, None, 1, library.module()))
    failed = refuses_preshuffle(unknown, **ON)
    assert failed is not None
    assert failed.name == "paged kernel"
    assert "RuntimeError: aiter gluon kernels require triton>=3.6.0, found 3.5.0" in failed.found
    assert "aiter's own demands" in str(refuses_preshuffle(hw, **ON))


def test_a_build_without_the_kernel():
    """A module of the name that has neither place, or a kernel that knows no preshuffled pages."""
    bare = types.ModuleType("aiter")
    failed = refuses_preshuffle(rocm("gfx950", "3.6.0", Library("aiter", None, None, 1, bare)), **ON)
    assert failed is not None
    assert failed.found == "aiter (interface generation 1) has no deepgemm_fp8_paged_mqa_logits"
    _, library = machine()
    module = library.module()
    module.ops.triton.attention.pa_mqa_logits.deepgemm_fp8_paged_mqa_logits = lambda q, kv_cache: None
    failed = refuses_preshuffle(rocm("gfx950", "3.6.0", Library("aiter", None, None, 1, module)), **ON)
    assert failed is not None
    assert failed.found == "deepgemm_fp8_paged_mqa_logits without Preshuffle"


def test_versions_that_are_none():
    """No version, and text that is none, compare with nothing; releases are in order."""
    assert version_of(None) is None
    assert version_of("main") is None
    versions = [version_of(it.version) for it in RELEASES]
    assert versions == sorted(versions)
