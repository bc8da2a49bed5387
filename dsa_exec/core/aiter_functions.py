"""aiter's functions, which lie in several modules of it, and what every backend of aiter asks first."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from dsa_config import settings
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.vendors import Library, Missing

MQA_LOGITS = "fp8_mqa_logits"
PAGED_MQA_LOGITS = "deepgemm_fp8_paged_mqa_logits"
STORE = "indexer_k_quant_and_cache"
GATHER = "cp_gather_indexer_k_quant_cache"
TOPK = "top_k_per_row_prefill"

RANK = 15
"""Before our portable kernels: whoever turns use_aiter on wants aiter's."""

READS = ("use_aiter",)
"""The settings that `refuses_aiter` and `declines_aiter` read."""

PLACES = {
    MQA_LOGITS: ("ops.triton.attention.fp8_mqa_logits", "ops.triton.fp8_mqa_logits"),
    PAGED_MQA_LOGITS: ("ops.triton.attention.pa_mqa_logits", "ops.triton.pa_mqa_logits"),
}
"""Modules that have a function, newest first. The others are names of aiter itself."""


def find_function(library: Library, name: str) -> Callable[..., Any] | Missing:
    """One of aiter's functions, or why there is none.

    Its module is imported if it is not yet. What an import raises is kept in words, and never taken for "not there".

    Args:
        library: aiter.
        name: the function's.
    """
    places = PLACES.get(name, ("",))
    for place in places:
        try:
            found = getattr(_module(library.module, place), name, None)
        except Exception as error:  # of code that is not ours: whatever it raises is kept in words
            if isinstance(error, ModuleNotFoundError) and _leads_to(error.name, f"{library.module.__name__}.{place}"):
                continue  # another release has it elsewhere
            return Missing(name, f"the import of aiter.{place} fails: {type(error).__name__}: {error}")
        if callable(found):
            return found
    return Missing(name, f"{library} has no {name}")


def aiter_function(hw: Capabilities, name: str) -> Callable[..., Any]:
    """One of aiter's functions, for a backend that does not refuse.

    Raises:
        ModuleNotFoundError: it is not there.
    """
    found = find_function(hw.library("aiter"), name)
    if isinstance(found, Missing):
        raise ModuleNotFoundError(found.reason, name="aiter")
    return found


def refuses_aiter(hw: Capabilities, name: str, *parameters: str) -> str | None:
    """Why a function of aiter's cannot be used on a device; None if it can.

    Args:
        hw: the device.
        name: the function.
        *parameters: what it must take; builds differ.
    """
    if not hw.is_hip:
        return f"arch={hw.arch}: aiter is for ROCm"
    if not settings.use_aiter:
        return "SGLANG_USE_AITER is off"
    if (sentence := hw.refuses_without("aiter")) is not None:
        return sentence
    function = find_function(hw.library("aiter"), name)
    if isinstance(function, Missing):
        return function.reason
    lacking = [parameter for parameter in parameters if not takes(function, parameter)]
    return f"{name} of {hw.library('aiter')} takes no {' and no '.join(lacking)}" if lacking else None


def declines_aiter(hw: Capabilities) -> str | None:
    """Why `auto` passes on aiter where nobody asks for it, so that it is no fall-back; None if it does not."""
    if not hw.is_hip:
        return f"for ROCm, this is {hw.arch}"
    return None if settings.use_aiter else "SGLANG_USE_AITER is off"


@functools.lru_cache(maxsize=64)
def takes(function: Callable[..., Any], parameter: str) -> bool:
    """Whether a function has a parameter of this name."""
    try:
        return parameter in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a function of an extension module may have no signature
        return False


def _module(top: Any, place: str) -> Any:
    module = top
    for part in place.split(".") if place else ():
        module = getattr(module, part, None)
    return importlib.import_module(f"{top.__name__}.{place}") if module is None else module


def _leads_to(name: str | None, place: str) -> bool:
    """Whether what is missing is the place itself, or a package on the way to it."""
    return name is not None and f"{place}.".startswith(f"{name}.")
