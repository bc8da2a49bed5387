"""Whether aiter's paged kernel for preshuffled keys can run: a chain of conditions, each with what was found.

A pure function of the hardware and of three settings' values, evaluated whenever it is asked: nothing is kept from an
earlier answer, and a condition that fails says so in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsa_exec.core.aiter_functions import PAGED_MQA_LOGITS, find_function, takes
from dsa_exec.core.aiter_releases import ahead_of_time_kernels, own_demands, version_of
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.vendors import Library, Missing

ARCHITECTURES = ("gfx942", "gfx950", "gfx1250")
"""Those that aiter's kernel is written for."""

LEAST_TRITON = "3.5.0"
"""The first Triton that compiles it. A pre-release of it is none: what it lacks is not known."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One link of the chain.

    Attributes:
        name: what it is about; a setting's name where it is one.
        found: what was found, in words.
        wanted: what is wanted, in words.
        holds: whether it is.
        setting: the setting whose value it is about, or None.
    """

    name: str
    found: str
    wanted: str
    holds: bool
    setting: str | None = None

    def __str__(self) -> str:
        """What was found, and if it does not hold what is wanted."""
        return f"{self.name}: {self.found}" + ("" if self.holds else f"; wanted {self.wanted}")


def preshuffle_conditions(
    hw: Capabilities,
    *,
    use_aiter: bool,
    hip_disable_preshuffle: bool,
    aiter_enable_aot_gluon_pa_mqa_logits: bool,
) -> tuple[Condition, ...]:
    """The whole chain, in order. The kernel can run if every condition holds.

    Args:
        hw: the device.
        use_aiter: the setting's value; and so the others.
        hip_disable_preshuffle: the setting's value.
        aiter_enable_aot_gluon_pa_mqa_logits: the setting's value.
    """
    return tuple(_chain(hw, use_aiter, hip_disable_preshuffle, aiter_enable_aot_gluon_pa_mqa_logits))


def refuses_preshuffle(
    hw: Capabilities,
    *,
    use_aiter: bool,
    hip_disable_preshuffle: bool,
    aiter_enable_aot_gluon_pa_mqa_logits: bool,
) -> Condition | None:
    """The first condition that fails; None if the kernel can run.

    What comes after it is not looked at: aiter is only imported where it is wanted.
    """
    chain = _chain(hw, use_aiter, hip_disable_preshuffle, aiter_enable_aot_gluon_pa_mqa_logits)
    return next((condition for condition in chain if not condition.holds), None)


def _chain(hw: Capabilities, use_aiter: bool, disabled: bool, ahead_of_time: bool) -> Iterator[Condition]:
    yield Condition("HIP", f"{'ROCm' if hw.is_hip else 'no ROCm'}, {hw.arch}", "a device of ROCm", hw.is_hip)
    yield Condition("use_aiter", _on(use_aiter), "on (SGLANG_USE_AITER=1)", use_aiter, "use_aiter")
    wanted = "off (SGLANG_DSA_HIP_DISABLE_PRESHUFFLE=0)"
    yield Condition("hip_disable_preshuffle", _on(disabled), wanted, not disabled, "hip_disable_preshuffle")
    library = hw.vendors["aiter"]
    yield Condition("aiter", str(library), "an aiter that can be imported", isinstance(library, Library))
    yield Condition("architecture", hw.arch, _or(ARCHITECTURES), hw.arch in ARCHITECTURES)
    yield _compiler(hw, library, ahead_of_time)
    if isinstance(library, Missing):
        yield Condition("aiter's own demands", "not known without aiter", "aiter", holds=False)
        return
    found, wanted, holds = own_demands(library.version, hw, ahead_of_time=ahead_of_time)
    yield Condition("aiter's own demands", found, wanted, holds)
    yield _kernel(library)


def _compiler(hw: Capabilities, library: Library | Missing, ahead_of_time: bool) -> Condition:
    name, setting = "Triton or ahead-of-time kernel", "aiter_enable_aot_gluon_pa_mqa_logits"
    variable = setting.upper()
    if ahead_of_time:
        # Then aiter compiles nothing: where the kernels are missing, no Triton helps.
        folder, there = ahead_of_time_kernels(library) if isinstance(library, Library) else (None, None)
        place = "" if folder is None else f", and {'there are kernels' if there else 'there is no kernel'} in {folder}"
        wanted = f"kernels there, or {variable}=0"
        return Condition(name, f"{variable} is on{place}", wanted, there is not False, setting)
    wanted = f"Triton {LEAST_TRITON} or newer, no pre-release of it, or {variable}=1"
    found, least = version_of(hw.triton_version), version_of(LEAST_TRITON)
    holds = found is not None and least is not None and found >= least
    told = "Triton is not installed" if hw.triton_version is None else f"Triton {hw.triton_version}"
    return Condition(name, told, wanted, holds, setting)


def _kernel(library: Library) -> Condition:
    wanted = f"a {PAGED_MQA_LOGITS} that takes Preshuffle"
    function = find_function(library, PAGED_MQA_LOGITS)
    if isinstance(function, Missing):
        return Condition("paged kernel", function.reason, wanted, holds=False)
    if not takes(function, "Preshuffle"):
        return Condition("paged kernel", f"{PAGED_MQA_LOGITS} without Preshuffle", wanted, holds=False)
    return Condition("paged kernel", f"{PAGED_MQA_LOGITS} takes Preshuffle", wanted, holds=True)


def _on(value: bool) -> str:
    return "on" if value else "off"


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
