"""Tokens into the MLA cache: the given slots and no other, in place, and never NaN for zeros."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import MlaCache, kv_store
from dsa_exec.caches.samples import poisoned_mla_cache
from dsa_exec.core.errors import LayoutError, UnsupportedCall
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.views import mla_latent_view, mla_scale_view, read_mla_tokens

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = ["torch", pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="no Triton"))]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LAYOUTS = [MlaLayout(), MlaLayout(page_tokens=16, latent_dim=128, rope_dim=6)]


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def ints(*numbers: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype, device=DEVICE)


def tokens(count: int, layout: MlaLayout) -> tuple[torch.Tensor, torch.Tensor]:
    return normal(count, layout.latent_dim), normal(count, layout.rope_dim, seed=2)


def store(backend: str, cache: MlaCache, latent, rope, slots, **more) -> torch.Tensor:
    with settings.override(kv_store_backend=backend, **more):
        kv_store(cache, latent, rope, slots)
    return cache.data


def poisoned(layout: MlaLayout, slots: int = 192) -> MlaCache:
    return poisoned_mla_cache(layout, slots // layout.page_tokens, DEVICE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_t23_store_honours_the_given_slots(layout, backend):
    """T23: two stores of a slice each write what one store of all writes; slots that were not given stay."""
    (latent, rope), slots = tokens(6, layout), ints(70, 3, 191, 64, 0, 17)
    whole, sliced = poisoned(layout), poisoned(layout)
    store(backend, whole, latent, rope, slots)
    store(backend, sliced, latent[4:], rope[4:], slots[4:])
    assert (sliced.data[slots[:4]] == 0xFF).all()
    store(backend, sliced, latent[:4], rope[:4], slots[:4])
    assert torch.equal(sliced.data, whole.data)


@pytest.mark.parametrize("backend", BACKENDS)
def test_t24_the_cache_itself_is_written(backend):
    """T24: a cache that is a part of a larger tensor is written in place, and its neighbours are not."""
    pool = torch.full((256, 656), 0xFF, dtype=torch.uint8, device=DEVICE)
    cache = MlaCache(pool[64:128], MlaLayout())
    store(backend, cache, *tokens(2, MlaLayout()), ints(0, 63))
    assert (pool != 0xFF).any(1).nonzero().flatten().tolist() == [64, 127]


@needs_triton
def test_t24_a_cache_that_is_not_contiguous_is_refused():
    """T24: it is refused in words when the cache is made, and when its tensor was restrided later; never copied."""
    wide = torch.zeros(64, 2 * 656, dtype=torch.uint8, device=DEVICE)
    with pytest.raises(LayoutError, match="with strides .*; wanted contiguous"):
        MlaCache(wide[:, :656], MlaLayout())
    cache = MlaCache(torch.zeros(128, 656, dtype=torch.uint8, device=DEVICE), MlaLayout())
    cache.data.as_strided_((64, 656), (2 * 656, 1))
    with pytest.raises(UnsupportedCall, match=r"triton: the cache's tensor has strides \[1312, 1\]"):
        store("triton", cache, *tokens(1, MlaLayout()), ints(0))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_t26_the_last_slot_beyond_two_gibibytes(backend):
    """T26: its byte address does not fit an int32, and the token arrives there."""
    slots = (2**31 // 656 // 64 + 2) * 64
    cache = MlaCache(torch.full((slots, 656), 0xFF, dtype=torch.uint8, device=DEVICE), MlaLayout())
    latent, rope = tokens(2, MlaLayout())
    store(backend, cache, latent, rope, ints(slots - 1, 5))
    small = poisoned(MlaLayout(), 64)
    store("torch", small, latent, rope, ints(63, 5))
    assert torch.equal(cache.data[-1], small.data[-1])
    assert (cache.data != 0xFF).any(1).nonzero().flatten().tolist() == [5, slots - 1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tiny", [0.0, -0.0, 1e-30, 1e-42, -1e-5])
def test_t29_a_group_of_zeros_is_stored_as_zeros(backend, tiny):
    """T29: one floor for the magnitude of a group, so that scales are positive and nothing is NaN."""
    latent, rope = tokens(3, MlaLayout())
    latent[0] = tiny
    latent[1, 128:256] = tiny
    cache = poisoned(MlaLayout(), 64)
    store(backend, cache, latent, rope, ints(0, 1, 2))
    written = cache.data[:3]
    floor = torch.tensor(1e-4, device=DEVICE) / torch.tensor(448.0, device=DEVICE)
    assert (mla_scale_view(written, MlaLayout()) >= floor).all()
    assert mla_scale_view(written, MlaLayout())[0].tolist() == [float(floor)] * 4
    if abs(tiny) < 1e-8:
        assert (mla_latent_view(written, MlaLayout())[0].float() == 0).all()
    read = read_mla_tokens(written, MlaLayout(), ints(0, 1, 2))
    torch.testing.assert_close(read[:, :512], latent, rtol=0.07, atol=1e-2)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_are_those_of_the_specification(layout, dtype):
    """Tokens of all magnitudes, zeros among them, at rows that are apart."""
    latent = normal(40, layout.latent_dim + 8) * torch.exp2(torch.linspace(-30, 9, 40, device=DEVICE))[:, None]
    latent[7] = 0
    latent, rope = latent.to(dtype)[:, 8:], normal(40, 99, dtype=dtype)[:, 3 : 3 + layout.rope_dim]
    slots = ints(*range(0, 160, 4), dtype=torch.int32)
    wanted = store("torch", poisoned(layout), latent, rope, slots)
    assert torch.equal(store("triton", poisoned(layout), latent, rope, slots), wanted)


@needs_triton
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of the interpreter's numpy
def test_nan_and_infinity_are_stored_as_in_the_specification():
    """NaN is NaN where the specification has it, and every number is its number."""
    latent, rope = tokens(4, MlaLayout())
    latent[0, 5], latent[1, 200], latent[2, 511] = torch.nan, torch.inf, -torch.inf
    rope[0, 0], rope[1, 1], rope[2, 2] = torch.nan, torch.inf, -torch.inf
    slots = ints(1, 2, 3, 4)
    wanted, got = (
        read_mla_tokens(store(backend, poisoned(MlaLayout()), latent, rope, slots), MlaLayout(), slots)
        for backend in ("torch", "triton")
    )
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_model_format_keeps_any_dtype_of_any_width(cache_dtype, dtype):
    """Tokens are rounded to the cache's dtype as torch rounds them; slots without a token keep their bits."""
    layout = MlaLayout("model", 8, latent_dim=200, rope_dim=3, element_bytes=cache_dtype.itemsize)
    latent, rope, slots = normal(5, 200, dtype=dtype), normal(5, 3, dtype=dtype), ints(3, -1, 15, 0, 8)
    caches = [MlaCache(torch.full((16, 203), 7.0, dtype=cache_dtype, device=DEVICE), layout) for _ in range(2)]
    wanted, got = (
        store(name, cache, latent, rope, slots) for name, cache in zip(("torch", "triton"), caches, strict=True)
    )
    assert torch.equal(got.view(torch.uint8), wanted.view(torch.uint8))


@needs_triton
def test_what_keeps_a_graph_is_refused():
    """The model format passes gradients and the kernel passes none: by name that is an error."""
    layout = MlaLayout("model", 8, latent_dim=16, rope_dim=4, element_bytes=4)
    cache = MlaCache(torch.zeros(8, 20, device=DEVICE), layout)
    latent, rope = normal(1, 16).requires_grad_(), normal(1, 4)
    with pytest.raises(UnsupportedCall, match="latent requires a gradient"):
        store("triton", cache, latent, rope, ints(0))
    store("auto", cache, latent, rope, ints(0))
    assert cache.data.requires_grad
    with torch.no_grad():
        store("triton", cache, rope.repeat(1, 4), rope, ints(3))
    assert torch.equal(cache.data[3].detach(), rope.repeat(1, 5)[0])


@needs_triton
@pytest.mark.parametrize("launch", ["tokens=1", "tokens=64", "warps=1"])
def test_launch_parameters_change_nothing(launch):
    """Whatever `kernel_launch` says, the bytes are the same."""
    (latent, rope), slots = tokens(5, MlaLayout()), ints(100, -1, 0, 191, 64)
    wanted = store("torch", poisoned(MlaLayout()), latent, rope, slots)
    got = store("triton", poisoned(MlaLayout()), latent, rope, slots, kernel_launch=f"kv_store.triton.{launch}")
    assert torch.equal(got, wanted)
