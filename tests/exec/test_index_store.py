"""Keys into the index-K cache: the given slots and no other, in place, through 64-bit addresses."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import IndexKCache, index_store
from dsa_exec.caches.samples import poisoned_index_k_cache
from dsa_exec.core.errors import LayoutError, UnsupportedCall
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.views import read_index_keys

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = ["torch", pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="no Triton"))]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LAYOUTS = [
    IndexKLayout(),
    IndexKLayout(page_tokens=1),
    IndexKLayout(page_tokens=16, order="preshuffled"),
    IndexKLayout(pow2_scale=True, hadamard=True),
]


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)


def ints(*numbers: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype, device=DEVICE)


def store(backend: str, cache: IndexKCache, keys: torch.Tensor, slots: torch.Tensor, **more) -> torch.Tensor:
    with settings.override(index_store_backend=backend, **more):
        index_store(cache, keys, slots)
    return cache.data


def poisoned(layout: IndexKLayout, slots: int = 192) -> IndexKCache:
    return poisoned_index_k_cache(layout, slots // layout.page_tokens, DEVICE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_t23_store_honours_the_given_slots(layout, backend):
    """T23: two stores of a slice each, in any order, write what one store of all writes, and nothing else."""
    keys, slots = normal(6, 128), ints(70, 3, 191, 64, 0, 17)
    whole, sliced, rest = poisoned(layout), poisoned(layout), poisoned(layout)
    store(backend, whole, keys, slots)
    store(backend, sliced, keys[4:], slots[4:])
    store(backend, rest, keys[4:], slots[4:])
    assert not torch.equal(sliced.data, whole.data)
    store(backend, sliced, keys[:4], slots[:4])
    assert torch.equal(sliced.data, whole.data)
    stored, _ = read_index_keys(rest.data, layout, slots[:4])
    assert (stored.view(torch.uint8) == 0xFF).all(), "slots that were not given stay as they were"


@pytest.mark.parametrize("backend", BACKENDS)
def test_t24_the_cache_itself_is_written(backend):
    """T24: a cache that is a part of a larger tensor is written in place, and its neighbours are not."""
    pool = torch.full((9, 8448), 0xFF, dtype=torch.uint8, device=DEVICE)
    cache = IndexKCache(pool[3:6], IndexKLayout())
    store(backend, cache, normal(2, 128), ints(0, 191))
    assert cache.data.data_ptr() == pool[3].data_ptr()
    assert (pool[3, :128] != 0xFF).any()
    assert (pool[5, 63 * 128 : 64 * 128] != 0xFF).any()
    assert (pool[:3] == 0xFF).all()
    assert (pool[6:] == 0xFF).all()


@needs_triton
def test_t24_a_cache_that_is_not_contiguous_is_refused():
    """T24: it is refused in words when the cache is made, and when its tensor was restrided later; never copied."""
    wide = torch.zeros(4, 2 * 8448, dtype=torch.uint8, device=DEVICE)
    with pytest.raises(LayoutError, match="with strides .*; wanted contiguous"):
        IndexKCache(wide[:, :8448], IndexKLayout())
    cache = IndexKCache(torch.zeros(4, 8448, dtype=torch.uint8, device=DEVICE), IndexKLayout())
    cache.data.as_strided_((2, 8448), (2 * 8448, 1))
    with pytest.raises(UnsupportedCall, match=r"triton: the cache's tensor has strides \[16896, 1\]"):
        store("triton", cache, normal(1, 128), ints(0))


@needs_triton
def test_a_cache_at_an_odd_address_is_refused():
    """Scales are f32: where none can lie, the kernel says so and writes nothing."""
    cache = IndexKCache(torch.zeros(8448 + 2, dtype=torch.uint8, device=DEVICE)[2:].view(1, 8448), IndexKLayout())
    with pytest.raises(UnsupportedCall, match="triton: the cache's tensor begins 2 bytes past a multiple of 4"):
        store("triton", cache, normal(1, 128), ints(0))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_t26_the_last_slot_beyond_two_gibibytes(layout, backend):
    """T26: its byte address does not fit an int32, and the key arrives there."""
    pages = 2**31 // layout.page_bytes + 100
    cache = IndexKCache(torch.full((pages, layout.page_bytes), 0xFF, dtype=torch.uint8, device=DEVICE), layout)
    keys, slots = normal(2, 128), ints(cache.slots - 1, 5)
    store(backend, cache, keys, slots)
    small = poisoned(layout)
    store("torch", small, keys, ints(191, 5))
    assert torch.equal(cache.data[-1], small.data[-1])
    written = (cache.data != 0xFF).any(1).nonzero().flatten().tolist()
    assert written == [5 // layout.page_tokens, pages - 1]


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_are_those_of_the_specification(layout, dtype):
    """Keys of all magnitudes, zeros among them, at rows that are apart."""
    keys = normal(40, 200) * torch.exp2(torch.linspace(-30, 9, 40, device=DEVICE))[:, None]
    keys[7] = 0
    keys, slots = keys.to(dtype)[:, 8:136], ints(*range(0, 160, 4), dtype=torch.int32)
    wanted = store("torch", poisoned(layout), keys, slots)
    assert torch.equal(store("triton", poisoned(layout), keys, slots), wanted)


@needs_triton
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of the interpreter's numpy
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_and_infinity_are_stored_as_in_the_specification(layout):
    """NaN is NaN where the specification has it, and every number is its number."""
    keys = normal(4, 128)
    keys[0, 5], keys[1, 7], keys[2, 100] = torch.nan, torch.inf, -torch.inf
    slots = ints(1, 2, 3, 4)
    read = [
        read_index_keys(store(backend, poisoned(layout), keys, slots), layout, slots) for backend in ("torch", "triton")
    ]
    for wanted, got in zip(*read, strict=True):
        torch.testing.assert_close(got.float(), wanted.float(), rtol=0, atol=0, equal_nan=True)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_model_format_keeps_any_dtype_of_any_width(cache_dtype, dtype):
    """Keys are rounded to the cache's dtype as torch rounds them; slots without a key keep their bits."""
    layout = IndexKLayout("model", page_tokens=8, head_dim=200, element_bytes=cache_dtype.itemsize)
    keys, slots = (normal(7, 200) * 1e-3).to(dtype), ints(3, -1, 15, 0, 8, -1, 9)
    shape = (2, 8, 200)
    caches = [IndexKCache(torch.full(shape, 7.0, dtype=cache_dtype, device=DEVICE), layout) for _ in range(2)]
    wanted, got = (store(name, cache, keys, slots) for name, cache in zip(("torch", "triton"), caches, strict=True))
    assert torch.equal(got.view(torch.uint8), wanted.view(torch.uint8))


@needs_triton
@pytest.mark.parametrize("launch", ["tokens=1", "tokens=64", "warps=1"])
def test_launch_parameters_change_nothing(launch):
    """Whatever `kernel_launch` says, the bytes are the same."""
    keys, slots = normal(5, 128), ints(100, -1, 0, 191, 64)
    wanted = store("torch", poisoned(LAYOUTS[3]), keys, slots)
    got = store("triton", poisoned(LAYOUTS[3]), keys, slots, kernel_launch=f"index_store.triton.{launch}")
    assert torch.equal(got, wanted)
