"""Which vendor libraries are there, told by what they have and not by what they are called."""

from __future__ import annotations

import sys
import types

import pytest

from dsa_exec.core import vendors
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.vendors import InstalledVendors, Library, Missing, find_library, installed_distributions


@pytest.fixture
def module(monkeypatch, tmp_path):
    """Writes a module of a name to where Python finds it, and forgets it afterwards."""

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        find_library.cache_clear()

    yield write
    find_library.cache_clear()
    for name in vendors.NAMES:
        sys.modules.pop(name, None)


def source(*names: str, **parameters: str) -> str:
    """A module with functions of these names."""
    return "".join(f"def {name}({parameters.get(name, '*args')}): ...\n" for name in names)


FIRST = ("fp8_mqa_logits", "fp8_paged_mqa_logits", "get_paged_mqa_logits_metadata")
BOTH = ("fp8_fp4_mqa_logits", "fp8_fp4_paged_mqa_logits")
FLASH = ("flash_mla_with_kvcache", "flash_mla_sparse_fwd", "get_mla_metadata")


@pytest.mark.parametrize(
    ("name", "text", "generation"),
    [
        ("deep_gemm", source(*FIRST), 1),
        ("deep_gemm", source(*FIRST, *BOTH), 1),
        ("deep_gemm", source(*BOTH, "get_paged_mqa_logits_metadata", "get_mqa_logits_metadata"), 2),
        ("flash_mla", source(*FLASH, flash_mla_with_kvcache="q, k_cache, attn_sink=None"), 2),
        ("flash_mla", source(*FLASH, flash_mla_with_kvcache="q, k_cache, num_splits"), 1),
        ("aiter", source("indexer_k_quant_and_cache", "cp_gather_indexer_k_quant_cache"), 1),
    ],
)
def test_the_generation_is_told_by_the_functions(module, name, text, generation):
    """Whatever its version says: builds of one version differ."""
    module(name, text)
    found = find_library(name)
    assert isinstance(found, Library)
    assert (found.name, found.generation) == (name, generation)


def test_a_library_that_is_not_installed_says_how_to_get_it():
    """Nothing of the kind is installed here."""
    find_library.cache_clear()
    found = find_library("flash_mla")
    assert isinstance(found, Missing)
    assert str(found) == (
        "flash_mla is not installed (pip install sgl-flash-mla; docs/vendors.md says which versions fit)"
    )


def test_a_namesake_is_not_the_library(module):
    """The asyncio helper of PyPI has the module name aiter and none of its functions."""
    module("aiter", "async def azip(*its): ...\n")
    found = find_library("aiter")
    assert isinstance(found, Missing)
    assert "has no indexer_k_quant_and_cache (the package named aiter is an asyncio helper)" in found.reason


@pytest.mark.parametrize(
    "error", ["ImportError('undefined symbol: c10')", "RuntimeError('nvcc is missing')", "OSError('libcuda')"]
)
def test_T27_a_broken_installation_is_told_in_words(module, error):
    """T27: whatever an import raises is the reason, and not taken for "not installed" in silence."""
    module("deep_gemm", f"raise {error}\n")
    found = find_library("deep_gemm")
    assert isinstance(found, Missing)
    name, _, text = error.partition("(")
    assert found.reason == f"deep_gemm is installed, and its import fails: {name}: {text[1:-2]}"


def test_the_version_is_the_packages_or_the_modules(module, monkeypatch):
    """A package that is known gives its version; another build that of its module, or none."""
    module("deep_gemm", source(*FIRST) + "__version__ = '9.9'\n")
    assert str(find_library("deep_gemm")) == "deep_gemm (9.9, interface generation 1)"
    find_library.cache_clear()
    monkeypatch.setattr(vendors, "installed_version", {"tokenspeed-deepgemm": "2.5.0"}.get)
    assert str(find_library("deep_gemm")) == "deep_gemm (tokenspeed-deepgemm 2.5.0, interface generation 1)"
    assert installed_distributions() == {"tokenspeed-deepgemm": "2.5.0"}


def test_parameters_of_a_library():
    """Builds are told apart by the parameters of functions; one without a signature takes none by name."""
    made = types.SimpleNamespace(attend=lambda q, kv, use_legacy=False: None, built_in=type)
    library = Library("flash_mla", None, None, 2, made)
    assert library.takes("attend", "use_legacy")
    assert not library.takes("attend", "attn_sink")
    assert not library.takes("built_in", "attn_sink")


def test_a_library_is_looked_for_when_it_is_asked_for(module):
    """Capabilities list the names without importing anything."""
    module("deep_gemm", source(*FIRST) + "raise AssertionError('imported')\n")
    found = InstalledVendors()
    assert set(found) == {"deep_gemm", "flash_mla", "aiter"}
    assert len(found) == 3
    assert "deep_gemm" not in sys.modules
    assert "imported" in str(found["deep_gemm"])
    with pytest.raises(KeyError, match="tilelang is no vendor library; there are deep_gemm, flash_mla, aiter"):
        found["tilelang"]


def test_capabilities_give_a_library_or_say_why_not():
    """A refusal before, and an error for who did not ask."""
    there = Library("deep_gemm", None, "1", 1, types.SimpleNamespace())
    hw = Capabilities(
        "cuda", "sm90", "2.11", "3.6", vendors={"deep_gemm": there, "flash_mla": Missing("flash_mla", "it is broken")}
    )
    assert hw.refuses_without("deep_gemm") is None
    assert hw.library("deep_gemm") is there
    assert hw.refuses_without("flash_mla") == "it is broken"
    with pytest.raises(ModuleNotFoundError, match="it is broken"):
        hw.library("flash_mla")
