"""Tokens out of the MLA cache: the specification's bits in any dtype, through 64-bit addresses."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import MlaCache, kv_gather, kv_store
from dsa_exec.caches.samples import poisoned_mla_cache, random_mla_cache
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.layouts.mla_kv import MlaLayout

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = ["torch", pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="no Triton"))]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LAYOUTS = [MlaLayout(), MlaLayout(page_tokens=3, latent_dim=256, rope_dim=6)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def ints(*numbers: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype, device=DEVICE)


def gather(backend: str, *args, dtype: torch.dtype = torch.bfloat16, **more) -> torch.Tensor:
    with settings.override(kv_gather_backend=backend, **more):
        return kv_gather(*args, dtype=dtype)


def expect_same_bits(*args, dtype: torch.dtype = torch.bfloat16, **more) -> None:
    wanted, got = gather("torch", *args, dtype=dtype), gather("triton", *args, dtype=dtype, **more)
    assert torch.equal(got.view(torch.uint8), wanted.view(torch.uint8))


def random(layout: MlaLayout, pages: int = 8) -> MlaCache:
    return random_mla_cache(torch.Generator().manual_seed(3), layout, pages, DEVICE)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_are_those_of_the_specification(layout, dtype):
    """Values times scales, rounded once; missing pages and tokens beyond the table give zeros."""
    table = ints(2, 0, 7, 1, 1, 9, -1, 3, 0).view(3, 3)
    lens = [it * layout.page_tokens // 3 for it in (9, 4, 11)]
    expect_same_bits(random(layout), table, ints(*lens), sum(lens), dtype=dtype)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cache_dtype", DTYPES)
def test_the_model_format_is_rounded_as_torch_rounds(cache_dtype, dtype):
    """From any dtype to any other, of any width."""
    layout = MlaLayout("model", 4, latent_dim=200, rope_dim=3, element_bytes=cache_dtype.itemsize)
    data = torch.randn(32, 203, generator=torch.Generator().manual_seed(3)).to(DEVICE, cache_dtype)
    expect_same_bits(MlaCache(data, layout), ints(2, 0, 9, 1).view(2, 2), ints(7, 6), 13, dtype=dtype)


@needs_triton
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of the interpreter's numpy
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_bytes_at_all_give_what_the_specification_gives(dtype):
    """NaN is NaN where the specification has it, every number is its number, infinity included."""
    generator = torch.Generator().manual_seed(3)
    data = torch.randint(0, 256, (128, 656), generator=generator, dtype=torch.int32).to(torch.uint8).to(DEVICE)
    args = (MlaCache(data, MlaLayout()), ints(1, 0).view(1, 2), ints(128), 128)
    wanted, got = (gather(backend, *args, dtype=dtype) for backend in ("torch", "triton"))
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


@needs_triton
def test_requests_are_found_whatever_their_lengths():
    """600 requests of 0 to 3 tokens: more than a program adds up at once, and empty ones in a row."""
    lens = [0] * 40 + [it * it % 4 for it in range(550)] + [0] * 10
    table = torch.arange(600, dtype=torch.int32, device=DEVICE)[:, None] % 8
    expect_same_bits(random(LAYOUTS[1]), table, ints(*lens, dtype=torch.int64), sum(lens))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_t26_the_last_page_beyond_two_gibibytes(backend):
    """T26: its byte address does not fit an int32, and what it holds is what comes back."""
    pages = 2**31 // 656 // 64 + 2
    data = torch.zeros(pages * 64, 656, dtype=torch.uint8, device=DEVICE)
    small = random(MlaLayout(), 1)
    data[-64:] = small.data
    got = gather(backend, MlaCache(data, MlaLayout()), ints(pages - 1).view(1, 1), ints(64), 64)
    assert torch.equal(got, gather("torch", small, ints(0).view(1, 1), ints(64), 64))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_t29_zeros_come_back_as_zeros(backend, dtype):
    """T29: a token of zeros, and a group of zeros among others, as stored by the same backend."""
    latent = torch.ones(2, 512, device=DEVICE)
    latent[0] = 0
    latent[1, 128:256] = 0
    cache = poisoned_mla_cache(MlaLayout(), 1, DEVICE)
    with settings.override(kv_store_backend=backend):
        kv_store(cache, latent, torch.zeros(2, 64, device=DEVICE), ints(0, 1))
    read = gather(backend, cache, ints(0).view(1, 1), ints(2), 2, dtype=dtype)
    torch.testing.assert_close(read[:, :512].float(), latent)
    assert (read[:, 512:] == 0).all()


@needs_triton
@pytest.mark.parametrize("launch", ["tokens=1", "tokens=64", "lens=2", "warps=1"])
def test_launch_parameters_change_nothing(launch):
    """Whatever `kernel_launch` says, the bits are the same."""
    table = ints(2, 0, 7, 1, 1, 3).view(3, 2)
    expect_same_bits(random(MlaLayout()), table, ints(70, 90, 1), 161, kernel_launch=f"kv_gather.triton.{launch}")


@needs_triton
def test_a_cache_that_keeps_a_graph_is_refused():
    """The model format passes gradients and the kernel passes none: by name that is an error, `auto` takes torch."""
    layout = MlaLayout("model", 8, latent_dim=16, rope_dim=4, element_bytes=4)
    cache = MlaCache(torch.zeros(8, 20, device=DEVICE, requires_grad=True), layout)
    args = (cache, ints(0).view(1, 1), ints(3), 3)
    with pytest.raises(UnsupportedCall, match="cache.data requires a gradient"):
        gather("triton", *args)
    gather("auto", *args).sum().backward()
    assert cache.data.grad is not None
    with torch.no_grad():
        assert not gather("triton", *args).any()
