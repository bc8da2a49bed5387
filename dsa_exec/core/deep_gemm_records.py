"""What deep_gemm takes: architectures, head counts, and how many rows of a request (next_n) as one row of its call.

It does not say so itself: it fails in a call that it does not take. Builds of one version may differ.
"""

from __future__ import annotations

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.head_padding import says_padding
from dsa_exec.core.triton_support import refuses_old_triton
from dsa_exec.core.vendors import Library

KERNELS_FOR = {"sm90": "sm90", "sm100": "sm100", "sm103": "sm100", "sm120": "sm120", "sm121": "sm120"}
"""Which of its kernels an architecture runs."""

HEADS = {"sm90": (32, 64), "sm100": (32, 64), "sm120": (16, 32, 64)}
"""Head counts that every build with such kernels takes."""

MOST_HEADS_SM100 = 128
"""Builds that were read take 64 at most, or any multiple of 4 up to this."""

ASSUMED_NATIVE_SM90 = frozenset({1, 2})
"""What a version that is not recorded is assumed to take on sm90: every source that was read takes these."""

NATIVE_SM90: dict[tuple[str, str], frozenset[int]] = {
    ("sgl-deep-gemm", "0.1.4"): frozenset({1, 2}),  # 1 and 2 ran on an H100; its source refuses more
}
"""By package and version, what `probe_native_next_n` found on a device, or what else is known of it."""


def refuses_hardware(hw: Capabilities) -> str | None:
    """Why deep_gemm cannot score e4m3 keys with f32 scales on a device; None if it can."""
    kernels = KERNELS_FOR.get(hw.arch)
    if kernels is None or hw.is_hip:
        return f"arch={hw.arch}: deep_gemm has kernels for sm90, sm100 and sm120"
    if (sentence := hw.refuses_without("deep_gemm")) is not None:
        return sentence
    library = hw.library("deep_gemm")
    if kernels == "sm100" and library.generation > 1:
        return f"{library} takes packed UE8M0 scales of keys and bf16 head weights on {hw.arch}, ours are f32"
    sentence = refuses_old_triton(hw)
    return sentence and f"{sentence} (one writes -inf where deep_gemm leaves cells undefined)"


def declines_hardware(hw: Capabilities, heads: int) -> str | None:
    """Why `auto` passes on deep_gemm though a device may run it; None if it does not."""
    kernels = KERNELS_FOR.get(hw.arch)
    if kernels is None or hw.is_hip:
        return f"for sm90 and sm100, this is {hw.arch}"
    if kernels == "sm120":
        return f"not every build has kernels for {hw.arch}, and none was run there"
    if kernels == "sm100" and heads > HEADS[kernels][-1]:
        return f"heads={heads}: not every build takes more than {HEADS[kernels][-1]} on {hw.arch}"
    return None


def padded_heads(heads: int, arch: str) -> int | None:
    """How many heads deep_gemm is given for so many, the others being zeros; None if it takes no such number."""
    kernels = KERNELS_FOR[arch]
    if heads < 1:
        return None
    fitting = [count for count in HEADS[kernels] if count >= heads]
    if not fitting and kernels == "sm100" and heads <= MOST_HEADS_SM100:
        return -(-heads // 4) * 4
    return fitting[0] if fitting else None


def refuses_heads(heads: int, arch: str) -> str | None:
    """Why deep_gemm cannot take so many heads on an architecture that it has kernels for; None if it can."""
    if padded_heads(heads, arch) is not None:
        return None
    kernels = KERNELS_FOR[arch]
    counts = ", ".join(map(str, HEADS[kernels]))
    most = MOST_HEADS_SM100 if kernels == "sm100" else HEADS[kernels][-1]
    return f"heads={heads}, deep_gemm takes 1 to {most} on {arch} (fewer are padded to one of {counts})"


def adapts_heads(heads: int, arch: str) -> str | None:
    """The padding in words; None if there is none."""
    return says_padding(heads, padded_heads(heads, arch) or heads)


def native_next_n(n: int, hw: Capabilities) -> tuple[bool, str]:
    """Whether n rows of a request can be one row of the paged call, and why.

    Args:
        n: rows a request.
        hw: the device.
    """
    if (sentence := refuses_hardware(hw)) is not None:
        return False, sentence
    kernels, library = KERNELS_FOR[hw.arch], hw.library("deep_gemm")
    if kernels == "sm100":
        return True, f"next_n={n}: deep_gemm takes any number on {hw.arch}"
    if kernels != "sm90":
        return n == 1, f"next_n={n}: what deep_gemm takes on {hw.arch} is not recorded, 1 is assumed"
    recorded = NATIVE_SM90.get((library.distribution or "", library.version or ""))
    numbers = " and ".join(map(str, sorted(recorded or ASSUMED_NATIVE_SM90)))
    how = f"is recorded to take {numbers}" if recorded else f"is not recorded, and assumed to take {numbers}"
    return n in (recorded or ASSUMED_NATIVE_SM90), f"next_n={n}: {_named(library)} {how} on sm90"


def shares(n: int, hw: Capabilities, num_sms: int) -> int:
    """Among how many a native call with n rows a request shares out its work.

    On sm90 pairs of multiprocessors share the keys of four rows.
    """
    return num_sms // 2 if KERNELS_FOR[hw.arch] == "sm90" and n == 4 else num_sms


def multiprocessors(hw: Capabilities) -> int:
    """How many multiprocessors deep_gemm uses now: what its own setting says, else all that there are."""
    asked = getattr(hw.library("deep_gemm").module, "get_num_sms", None)
    return hw.multiprocessors if asked is None else int(asked())


def _named(library: Library) -> str:
    return " ".join(part for part in (library.distribution or library.name, library.version) if part)
