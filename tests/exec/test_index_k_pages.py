"""The pages of an index-K cache: decided once, at allocation, by device and settings, and kept with the cache."""

from __future__ import annotations

import itertools
import logging
import warnings

import pytest
import torch
from fakes.aiter import machine, rocm

from dsa_config import TooLate, settings
from dsa_exec import IndexKCache, MlaCache
from dsa_exec.caches import index_k_pages
from dsa_exec.caches.index_k_pages import decide_pages
from dsa_exec.core.errors import LayoutError
from dsa_exec.core.hardware import Capabilities, assumed, capabilities
from dsa_exec.core.vendors import Missing

CUDA = Capabilities("cuda", "sm90", "2.11.0", "3.6.0")
WHERE = {"device": "cpu", "model_dtype": torch.bfloat16}


@pytest.fixture(autouse=True)
def _nothing_said_yet():
    index_k_pages.forget_warnings()
    yield
    index_k_pages.forget_warnings()


def allocate(hw: Capabilities, **more) -> IndexKCache:
    with assumed(hw):
        return IndexKCache.allocate(100, **WHERE, **more)


def pages(cache: IndexKCache) -> tuple[int, str]:
    return cache.layout.page_tokens, cache.layout.order


def told(caplog) -> list[tuple[str, str]]:
    return [(it.levelname, it.message) for it in caplog.records if it.name == "dsa_exec.caches"]


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("triton", ["3.4.0", "3.5.0rc1", "3.5.0", "3.5.0+rocm7.0", "3.6.0"])
@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
def test_t4_pages_follow_the_settings_of_the_moment(arch, triton, flags):
    """T4: on ROCm preshuffled pages of 64 where aiter's kernel can run by the flags as they are now, else plain 1."""
    use, disabled, ahead_of_time = flags
    hw, _ = machine(arch, triton, "unknown", ahead_of_time=ahead_of_time)
    can = use and not disabled and (ahead_of_time or triton in {"3.5.0", "3.5.0+rocm7.0", "3.6.0"})
    before = allocate(hw)
    with settings.override(
        use_aiter=use, hip_disable_preshuffle=disabled, aiter_enable_aot_gluon_pa_mqa_logits=ahead_of_time
    ):
        cache = allocate(hw)
        assert decide_pages("fp8", hw).order == cache.layout.order
    after = allocate(hw)
    assert pages(cache) == ((64, "preshuffled") if can else (1, "plain"))
    assert pages(before) == pages(after) == (1, "plain")
    assert cache.slots == (128 if can else 100)
    assert cache.layout.unsigned_zero == (arch == "gfx942")
    assert cache.decision is not None
    assert (cache.decision.failed is None) == can


def test_elsewhere_pages_are_of_64_or_as_asked():
    """CUDA takes plain pages of 64; the CPU any; so does the model format everywhere, which no vendor reads."""
    assert pages(allocate(CUDA)) == (64, "plain")
    assert pages(IndexKCache.allocate(100, **WHERE)) == (64, "plain")
    assert pages(IndexKCache.allocate(100, page_tokens=3, **WHERE)) == (3, "plain")
    assert pages(IndexKCache.allocate(100, page_tokens=32, order="preshuffled", **WHERE)) == (32, "preshuffled")
    with settings.override(index_k_format="model", use_aiter=True):
        assert pages(allocate(machine()[0])) == (64, "plain")
        assert pages(allocate(CUDA, page_tokens=5)) == (5, "plain")


def test_pages_that_are_asked_for_are_checked():
    """Preshuffled pages are whole tiles; plain ones have 1 token on ROCm and 64 on CUDA; the error says why."""
    hw, _ = machine()
    with settings.override(use_aiter=True):
        assert pages(allocate(hw, page_tokens=32)) == (32, "preshuffled")
        assert pages(allocate(hw, page_tokens=1)) == (1, "plain")
        assert pages(allocate(hw, order="plain")) == (1, "plain")
        with pytest.raises(LayoutError, match="page size is 24; wanted a multiple of 16 tokens for preshuffled keys"):
            allocate(hw, page_tokens=24, order="preshuffled")
        with pytest.raises(LayoutError, match=r"page size is 24; wanted 1 token for plain pages on gfx950$"):
            allocate(hw, page_tokens=24)
    assert pages(allocate(hw, order="preshuffled")) == (64, "preshuffled")
    assert allocate(hw, order="preshuffled").decision.why == "asked for"
    with pytest.raises(LayoutError) as caught:
        allocate(hw, page_tokens=64)
    assert str(caught.value) == (
        "index-K cache: page size is 64; wanted 1 token for plain pages on gfx950; preshuffled ones would be of 64, "
        "but use_aiter: off; wanted on (SGLANG_USE_AITER=1)"
    )
    for asked in ({"page_tokens": 1}, {"page_tokens": 128}, {"order": "preshuffled"}):
        with pytest.raises(LayoutError, match="page layout is .*; wanted plain pages of 64 on sm90"):
            allocate(CUDA, **asked)
    assert pages(allocate(CUDA, page_tokens=64, order="plain")) == (64, "plain")
    with settings.override(index_k_format="model"), pytest.raises(LayoutError, match="wanted fp8 for preshuffled"):
        allocate(hw, order="preshuffled")


def test_a_cache_may_still_be_made_of_any_layout():
    """Who makes the object directly knows what it is for; no decision is kept then."""
    cache = allocate(machine()[0])
    assert IndexKCache(cache.data, cache.layout).decision is None


def test_falling_back_to_pages_of_one_is_told_once(caplog):
    """One warning with the failed condition, for any number of caches; another reason is told again."""
    hw, _ = machine(triton="3.4.0")
    with caplog.at_level(logging.INFO, "dsa_exec.caches"):
        with settings.override(use_aiter=True):
            allocate(hw)
            allocate(hw)
            with settings.override(hip_disable_preshuffle=True):
                allocate(hw)
        allocate(hw)
    (compiler, disabled, off) = told(caplog)
    assert compiler[0] == disabled[0] == off[0] == "WARNING"
    assert compiler[1] == (
        "the index-K cache on gfx950 gets plain pages of 1 token: Triton or ahead-of-time kernel: Triton 3.4.0; wanted "
        "Triton 3.5.0 or newer, no pre-release of it, or AITER_ENABLE_AOT_GLUON_PA_MQA_LOGITS=1. Page tables are 64 "
        "times as long as with preshuffled pages of 64"
    )
    assert "1 token: hip_disable_preshuffle: on; wanted off (SGLANG_DSA_HIP_DISABLE_PRESHUFFLE=0)" in disabled[1]
    assert "1 token: use_aiter: off; wanted on (SGLANG_USE_AITER=1)" in off[1]


def test_nothing_is_told_where_nothing_could_be_better(caplog):
    """No word off ROCm, of preshuffled pages, of what was asked for; no warning where aiter cannot be."""
    with caplog.at_level(logging.INFO, "dsa_exec.caches"):
        allocate(CUDA)
        IndexKCache.allocate(100, **WHERE)
        with settings.override(use_aiter=True):
            allocate(machine()[0])
        allocate(machine()[0], page_tokens=1)
        assert told(caplog) == []
        allocate(machine("gfx90a")[0])
        assert [level for level, _ in told(caplog)] == ["INFO"]
        with settings.override(use_aiter=True):
            allocate(machine("gfx90a")[0])
        assert [level for level, _ in told(caplog)] == ["INFO", "WARNING"]


def test_aiter_is_not_looked_for_where_it_is_not_wanted():
    """With use_aiter off, allocation imports nothing of aiter's."""

    class Untouched(dict):
        def __missing__(self, name):
            raise AssertionError(name)

    assert pages(allocate(Capabilities("cuda", "gfx950", "2", "3.6.0", is_hip=True, vendors=Untouched()))) == (
        1,
        "plain",
    )


def test_t27_a_broken_aiter_is_told(caplog):
    """T27: what its import raised is in the warning; the ancestor's probe answered no, and kept that."""
    broken = rocm("gfx950", "3.6.0", Missing("aiter", "aiter is installed, and its import fails: OSError: no hip"))
    with settings.override(use_aiter=True), caplog.at_level(logging.WARNING, "dsa_exec.caches"):
        assert pages(allocate(broken)) == (1, "plain")
        assert pages(allocate(machine()[0])) == (64, "preshuffled")
    assert "aiter is installed, and its import fails: OSError: no hip; wanted" in told(caplog)[0][1]


@pytest.mark.parametrize(
    ("name", "variable", "at"),
    [
        ("use_aiter", "SGLANG_USE_AITER", "the next call, and for how a cache is laid out at its next allocation"),
        ("hip_disable_preshuffle", "SGLANG_DSA_HIP_DISABLE_PRESHUFFLE", "the next allocation of a cache"),
        (
            "aiter_enable_aot_gluon_pa_mqa_logits",
            "AITER_ENABLE_AOT_GLUON_PA_MQA_LOGITS",
            "the next allocation of a cache",
        ),
    ],
)
def test_t4_a_change_is_too_late_for_caches_that_are_there(monkeypatch, name, variable, at):
    """T4: reported with the line that allocated, honoured at the next allocation, and up to date again after it."""
    hw, _ = machine(triton="3.6.0", ahead_of_time=name.startswith("aiter"))
    with assumed(hw):
        held = IndexKCache.allocate(100, **WHERE)
        assert getattr(settings, name) is False
        monkeypatch.setenv(variable, "1")
        with pytest.warns(TooLate) as caught:
            assert getattr(settings, name) is True
        (warning,) = {str(it.message) for it in caught}
        assert warning.startswith(
            f"{name} changed from False to True (from environment variable {variable}), too late: "
        )
        assert f"an index-K cache of {held.slots} slots was allocated at {__file__}:" in warning
        assert warning.endswith(f"; it takes effect at {at}")
        assert settings.explain(name).warnings == (warning,)
        with settings.override(use_aiter=True):
            cache = IndexKCache.allocate(100, **WHERE)
        assert pages(cache) == ((1, "plain") if name == "hip_disable_preshuffle" else (64, "preshuffled"))
        assert settings.explain(name).warnings == ()


def test_formats_are_too_late_as_well():
    """Both caches say that they were allocated; an override is no change."""
    held = [MlaCache.allocate(64, **WHERE), IndexKCache.allocate(128, **WHERE)]
    with pytest.warns(TooLate, match="kv_format changed .*an MLA cache of 64 slots was allocated at"):
        settings.set(kv_format="model")
    with pytest.warns(TooLate, match="index_k_format changed .*an index-K cache of 128 slots was allocated at"):
        settings.set(index_k_format="model")
    held.append(MlaCache.allocate(64, **WHERE))
    assert settings.explain("kv_format").warnings == ()
    assert len(settings.explain("index_k_format").warnings) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with settings.override(index_k_format="model"):
            assert IndexKCache.allocate(64, **WHERE).layout.format == "model"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_as_it_is():
    """On a CUDA device plain pages of 64 and nothing else; on one of ROCm what its chain of conditions leads to."""
    hw = capabilities(torch.device("cuda"))
    cache = IndexKCache.allocate(100, device="cuda", model_dtype=torch.bfloat16)
    assert cache.decision == decide_pages("fp8", hw)
    assert pages(cache) == ((64, "plain") if not hw.is_hip else (cache.decision.page_tokens, cache.decision.order))
    if not hw.is_hip:
        with pytest.raises(LayoutError, match="wanted plain pages of 64"):
            IndexKCache.allocate(100, device="cuda", model_dtype=torch.bfloat16, page_tokens=1)


def test_what_a_test_allocates_ends_with_it():
    """The test before this one has allocated; nothing is too late here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings.set(kv_format="model", use_aiter=True)
    assert settings.explain("kv_format").warnings == ()
