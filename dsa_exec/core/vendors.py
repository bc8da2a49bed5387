"""Vendor kernel libraries: which are there, in which version and interface generation, or why they cannot be used.

The one place that imports them, when they are first asked for. A library is known by the functions that it has: other
packages have the same module names. Whatever its import raises is kept in words, and never taken for "not installed".
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Library:
    """A vendor's library that can be used.

    Attributes:
        name: the module, such as deep_gemm.
        distribution: the package that it came in, such as sgl-deep-gemm; None if it is none of those known.
        version: that package's version, else the module's own, else None.
        generation: of its interface, from 1.
        module: the module.
    """

    name: str
    distribution: str | None
    version: str | None
    generation: int
    module: Any

    def takes(self, function: str, parameter: str) -> bool:
        """Whether a function of it has a parameter of this name; builds differ."""
        return parameter in _parameters(getattr(self.module, function))

    def __str__(self) -> str:
        """Its name, package, version and generation."""
        of = " ".join(part for part in (self.distribution, self.version) if part)
        return f"{self.name} ({f'{of}, ' if of else ''}interface generation {self.generation})"


@dataclass(frozen=True, slots=True)
class Missing:
    """A vendor's library that cannot be used.

    Attributes:
        name: the module.
        reason: why, in a sentence.
        import_failed: it is installed, and its import raises.
    """

    name: str
    reason: str
    import_failed: bool = False

    def __str__(self) -> str:
        """The reason."""
        return self.reason


@dataclass(frozen=True, slots=True)
class _Vendor:
    """How a library is recognised.

    Attributes:
        distributions: packages that have the module.
        install: what installs it.
        generation: of a module's interface; 0 if it is another module of the same name.
        needs: what it is recognised by, in words.
    """

    distributions: tuple[str, ...]
    install: str
    generation: Callable[[Any], int]
    needs: str


def _deep_gemm_generation(module: Any) -> int:
    first = {"fp8_mqa_logits", "fp8_paged_mqa_logits", "get_paged_mqa_logits_metadata"}
    second = {"fp8_fp4_mqa_logits", "fp8_fp4_paged_mqa_logits", "get_paged_mqa_logits_metadata"}
    if _has(module, first):
        return 1
    return 2 if _has(module, second) else 0


def _flash_mla_generation(module: Any) -> int:
    if not _has(module, {"flash_mla_with_kvcache", "flash_mla_sparse_fwd", "get_mla_metadata"}):
        return 0
    # Before, a schedule was made of lengths; since, it is an object that the first call fills.
    return 2 if "attn_sink" in _parameters(module.flash_mla_with_kvcache) else 1


def _aiter_generation(module: Any) -> int:
    return 1 if _has(module, {"indexer_k_quant_and_cache", "cp_gather_indexer_k_quant_cache"}) else 0


_VENDORS = {
    "deep_gemm": _Vendor(
        ("sgl-deep-gemm", "tokenspeed-deepgemm"),
        "pip install sgl-deep-gemm",
        _deep_gemm_generation,
        "fp8_mqa_logits or fp8_fp4_mqa_logits",
    ),
    "flash_mla": _Vendor(
        ("sgl-flash-mla", "tokenspeed-flashmla"),
        "pip install sgl-flash-mla",
        _flash_mla_generation,
        "flash_mla_sparse_fwd and flash_mla_with_kvcache",
    ),
    "aiter": _Vendor(
        ("amd-aiter",),
        "pip install amd-aiter",
        _aiter_generation,
        "indexer_k_quant_and_cache (the package named aiter is an asyncio helper)",
    ),
}
NAMES = tuple(_VENDORS)


@functools.cache
def find_library(name: str) -> Library | Missing:
    """A vendor's library, looked for and imported at the first call in the process."""
    vendor = _VENDORS[name]
    if importlib.util.find_spec(name) is None:
        return Missing(name, f"{name} is not installed ({vendor.install}; docs/vendors.md says which versions fit)")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # of code that is not ours: whatever it raises is kept in words
        told = f"{type(error).__name__}: {error}"
        return Missing(name, f"{name} is installed, and its import fails: {told}", import_failed=True)
    generation = vendor.generation(module)
    if generation == 0:
        return Missing(name, f"the module {name} at {module.__file__} has no {vendor.needs}")
    for distribution in vendor.distributions:
        if (version := installed_version(distribution)) is not None:
            return Library(name, distribution, version, generation, module)
    return Library(name, None, getattr(module, "__version__", None), generation, module)


class InstalledVendors(Mapping[str, Library | Missing]):
    """The libraries of this process by name, each looked for when it is asked for."""

    def __getitem__(self, name: str) -> Library | Missing:
        """The library, or why there is none."""
        return find_library(name) if name in _VENDORS else _unknown(name)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(_VENDORS)

    def __len__(self) -> int:
        """How many are known."""
        return len(_VENDORS)


def installed_version(distribution: str) -> str | None:
    """The version of an installed package, without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_distributions() -> dict[str, str]:
    """The vendor packages that are installed, each with its version; none is imported."""
    named = (distribution for vendor in _VENDORS.values() for distribution in vendor.distributions)
    found = {distribution: installed_version(distribution) for distribution in named}
    return {distribution: version for distribution, version in found.items() if version is not None}


def _unknown(name: str) -> Missing:
    raise KeyError(f"{name} is no vendor library; there are {', '.join(_VENDORS)}")


def _has(module: Any, names: set[str]) -> bool:
    return all(callable(getattr(module, name, None)) for name in names)


@functools.lru_cache(maxsize=64)  # `takes` is asked on every call of a backend
def _parameters(function: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a function of an extension module may have no signature
        return ()
