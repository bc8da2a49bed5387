"""What is known of aiter's releases, beside what can be seen in an installed one.

Read in its public sources; none of it was run. `dsa doctor` and docs/rocm.md say the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.vendors import Library

if TYPE_CHECKING:
    from packaging.version import Version


@dataclass(frozen=True, slots=True)
class Release:
    """What is so from a release of amd-aiter on.

    Attributes:
        version: the first that has it.
        words: what.
    """

    version: str
    words: str


TRITON_36 = Release("0.1.15", "its Gluon kernels raise an error when they are imported under a Triton before 3.6.0")
GFX1250 = Release("0.1.16", "its paged kernel is written for gfx1250 too")

RELEASES = (
    Release("0.1.8", "the paged kernel takes Preshuffle; ahead-of-time kernels are not for Triton from 3.4.0 to 3.5.0"),
    Release("0.1.13", "the cache kernels take preshuffle"),
    TRITON_36,
    GFX1250,
    Release("0.1.18", "the paged kernel writes rows whose logits begin beyond 2 GiB (before, they are silently lost)"),
    Release("0.1.18", "the ragged kernel recasts e4m3 to e4m3fnuz on gfx942"),
    Release("0.1.20", "top-k takes stable=True: exact ties, ascending order"),
)
"""From which release on what is so."""

AHEAD_OF_TIME_ABI = "3.4.0", "3.5.0"
"""aiter stops at an assertion where it would load ahead-of-time kernels under a Triton from the first on and before the
second: these Tritons pass one argument more."""


def version_of(text: str | None) -> Version | None:
    """A version that can be compared; None if there is none, or it is none."""
    from packaging.version import InvalidVersion, Version

    try:
        return None if text is None else Version(text)
    except InvalidVersion:
        return None


def own_demands(aiter_version: str | None, hw: Capabilities, *, ahead_of_time: bool) -> tuple[str, str, bool]:
    """What an aiter demands of its surroundings beside what every aiter does: found, wanted, and whether it holds.

    Args:
        aiter_version: of the package; None if it is not known. Nothing is known of its demands then.
        hw: the device, and its Triton.
        ahead_of_time: it is told to load ahead-of-time kernels.
    """
    known, triton = version_of(aiter_version), version_of(hw.triton_version)
    if known is None:
        return f"aiter {aiter_version or 'of no known version'}: nothing is known of them", "anything", True
    found = f"aiter {aiter_version} on {hw.arch} with Triton {hw.triton_version or 'missing'}"
    if hw.arch == "gfx1250" and known < _version(GFX1250.version):
        return found, f"aiter {GFX1250.version} or newer: from there on {GFX1250.words}", False
    if triton is not None and ahead_of_time:
        first, last = map(_version, AHEAD_OF_TIME_ABI)
        # As aiter compares: without what follows the numbers.
        if first <= _version(triton.base_version) < last:
            return found, f"Triton before {first}, or from {last} on, for ahead-of-time kernels", False
        if _version(triton.base_version) < first:
            return found, "nothing more", True
    if known >= _version(TRITON_36.version) and (triton is None or triton < _version("3.6.0")):
        return found, f"Triton 3.6.0 or newer: from aiter {TRITON_36.version} on {TRITON_36.words}", False
    return found, "nothing more", True


def ahead_of_time_kernels(library: Library) -> tuple[Path | None, bool | None]:
    """Where an installed aiter keeps ahead-of-time kernels for preshuffled keys, and whether there are any.

    None and None for a module that is in no file.
    """
    file = getattr(library.module, "__file__", None)
    if file is None:
        return None, None
    folder = Path(file).parent / "ops/triton/configs/paged_mqa_logits/aot"
    return folder, any(folder.glob("paged_mqa_logits_preshuffle_*"))


def _version(text: str) -> Version:
    from packaging.version import Version

    return Version(text)
