"""Bytes of a cache that come from elsewhere: a worker, a host or a file agrees with who made them, or is told."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from fakes.aiter import machine

import dsa_exec
from dsa_config import TooLate, settings
from dsa_exec import IndexKCache
from dsa_exec.caches.agreement import attach_index_k_cache, require_agreement, require_format
from dsa_exec.caches.moves import HostPages, pages_from_host, pages_to_host
from dsa_exec.core.errors import LayoutError
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.layouts.index_k import IndexKLayout

WHERE = {"device": "cpu", "model_dtype": torch.bfloat16}
BASE = IndexKLayout()


def test_t4_a_worker_that_disagrees_with_its_cache_is_told(monkeypatch):
    """T4: a launcher decided on preshuffled pages; a worker whose environment says otherwise would misread them."""
    hw, _ = machine()
    with assumed(hw), settings.override(use_aiter=True):
        made = IndexKCache.allocate(100, **WHERE)
        same = attach_index_k_cache(made.data, made.layout.spec, model_dtype=torch.bfloat16)
    assert same.layout == made.layout
    assert same.data is made.data
    monkeypatch.setenv("SGLANG_USE_AITER", "1")
    monkeypatch.setenv("SGLANG_DSA_HIP_DISABLE_PRESHUFFLE", "1")
    with assumed(hw), pytest.raises(LayoutError) as caught, pytest.warns(TooLate):
        attach_index_k_cache(made.data, made.layout.spec, model_dtype=torch.bfloat16)
    assert str(caught.value) == (
        "index-K cache from elsewhere: page layout is preshuffled pages of 64; wanted plain pages of 1 (aiter's kernel "
        "for preshuffled pages cannot run: hip_disable_preshuffle: on; wanted off "
        "(SGLANG_DSA_HIP_DISABLE_PRESHUFFLE=0)). Here hip_disable_preshuffle is from environment variable "
        "SGLANG_DSA_HIP_DISABLE_PRESHUFFLE; where the cache was made it may be another"
    )


def test_t4_and_the_other_way_round():
    """T4: pages of one token, where the worker would have preshuffled ones, or has an older Triton."""
    hw, _ = machine("gfx942")
    with assumed(hw):
        plain = IndexKCache.allocate(100, **WHERE)
        require_agreement(plain)
        with settings.override(use_aiter=True), pytest.raises(LayoutError, match="is plain pages of 1; wanted preshuf"):
            require_agreement(plain)
    with settings.override(use_aiter=True):
        with assumed(hw):
            preshuffled = IndexKCache.allocate(100, **WHERE)
        old, _ = machine("gfx942", "3.4.0")
        with pytest.raises(LayoutError, match=r"wanted plain pages of 1 .*Triton 3\.4\.0; wanted Triton 3\.5\.0"):
            require_agreement(preshuffled, old)
        require_agreement(preshuffled, hw)


def test_where_any_pages_do_there_is_nothing_to_agree_on():
    """The CPU reads every layout, and the model format is read by our kernels alone."""
    odd = IndexKCache.allocate(48, page_tokens=16, order="preshuffled", **WHERE)
    require_agreement(odd)
    attach_index_k_cache(odd.data, odd.layout.spec, model_dtype=torch.bfloat16)
    cuda = Capabilities("cuda", "sm90", "2", "3.6.0")
    with pytest.raises(LayoutError, match="is preshuffled pages of 16; wanted plain pages of 64"):
        require_agreement(odd, cuda)
    with settings.override(index_k_format="model"):
        kept = IndexKCache.allocate(48, page_tokens=16, **WHERE)
        require_agreement(kept, cuda)
        assert attach_index_k_cache(kept.data, kept.layout.spec, model_dtype=torch.bfloat16).layout == kept.layout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hadamard": True}, "hadamard=True; wanted hadamard=False"),
        ({"pow2_scale": True}, "pow2_scale=True; wanted pow2_scale=False"),
        ({"order": "preshuffled"}, "order='preshuffled'; wanted order='plain'"),
        ({"page_tokens": 1}, "page_tokens=1; wanted page_tokens=64"),
        ({"unsigned_zero": True}, "unsigned_zero=True; wanted unsigned_zero=False"),
        (
            {"format": "model", "element_bytes": 2},
            "format='model', element_bytes=2; wanted format='fp8', element_bytes",
        ),
        ({"hadamard": True, "pow2_scale": True}, "pow2_scale=True, hadamard=True; wanted pow2_scale=False, hadamard="),
    ],
)
def test_t19_another_representation_is_refused(change, words):
    """T19: the ancestor's caches looked alike with rotated keys and without, rounded scales and exact ones."""
    other = dataclasses.replace(BASE, **change)
    with pytest.raises(LayoutError, match=f"format is {other.spec}, with {words}"):
        require_format(other.spec, BASE)
    require_format(other.spec, other)


def test_t19_a_cache_from_before_a_restart():
    """T19: its keys were rotated; a process that no longer rotates would score them against queries as they are."""
    before = IndexKCache.allocate(64, hadamard=True, pow2_scale=True, **WHERE)
    dsa_exec.index_store(before, torch.randn(3, 128), torch.tensor([5, 6, 7]))
    kept, spec = before.data.clone(), before.layout.spec
    with pytest.raises(LayoutError, match="hadamard=True; wanted hadamard=False"):
        attach_index_k_cache(kept, spec, model_dtype=torch.bfloat16, pow2_scale=True)
    after = attach_index_k_cache(kept, spec, model_dtype=torch.bfloat16, pow2_scale=True, hadamard=True)
    assert after.layout == before.layout
    with settings.override(index_k_format="model"), pytest.raises(LayoutError, match="wanted format='model'"):
        attach_index_k_cache(kept, spec, model_dtype=torch.bfloat16, pow2_scale=True, hadamard=True)


def test_t19_pages_on_the_host_keep_their_representation():
    """T19: a host's pages of rotated keys do not go into a cache of keys as they are, nor into one without -0."""
    rotated = IndexKCache.allocate(64, hadamard=True, **WHERE)
    host = pages_to_host(rotated, torch.tensor([0]))
    for change in ({}, {"hadamard": True, "pow2_scale": True}, {"hadamard": True, "order": "preshuffled"}):
        with pytest.raises(LayoutError, match="pages from the host: layout is"):
            pages_from_host(IndexKCache.allocate(64, **change, **WHERE), host, torch.tensor([0]))
    unsigned = HostPages(host.data, dataclasses.replace(rotated.layout, unsigned_zero=True))
    with pytest.raises(LayoutError, match="unsigned_zero=True"):
        pages_from_host(rotated, unsigned, torch.tensor([0]))


@pytest.mark.parametrize(
    "layout",
    [BASE, IndexKLayout(page_tokens=1, pow2_scale=True), IndexKLayout(order="preshuffled", unsigned_zero=True)],
)
def test_a_spec_is_a_layout_in_a_word(layout):
    """It leads back to the same layout."""
    assert IndexKLayout.of_spec(layout.spec) == layout


@pytest.mark.parametrize(
    "spec", ["", "fp8/64/128/plain/1/0/0", "fp8/64/128/plain/1/0/0/2", "fp8/a/128/plain/1/0/0/0", "fp8" + "/1" * 9]
)
def test_a_spec_of_another_version_is_refused(spec):
    """Too few or too many parts, or parts that are none: nothing is guessed."""
    with pytest.raises(
        LayoutError, match="index-K cache: spec is .*; wanted eight parts, as in fp8/64/128/plain/1/0/0/0"
    ):
        IndexKLayout.of_spec(spec)
    with pytest.raises(LayoutError, match="format is 'fp9'"):
        IndexKLayout.of_spec("fp9/64/128/plain/1/0/0/0")
