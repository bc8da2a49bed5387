"""Keys out of the index-K cache: the stored bits of any layout, through 64-bit addresses, without waiting."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import IndexKCache, index_gather
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.layouts.index_k import IndexKLayout

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = ["torch", pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="no Triton"))]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LAYOUTS = [
    IndexKLayout(),
    IndexKLayout(page_tokens=1),
    IndexKLayout(page_tokens=48),
    IndexKLayout(page_tokens=16, order="preshuffled"),
]


def ints(*numbers: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype, device=DEVICE)


def random_bytes(layout: IndexKLayout, pages: int) -> IndexKCache:
    """A cache of any bytes at all: NaN of every kind among keys and scales."""
    generator = torch.Generator().manual_seed(3)
    data = torch.randint(0, 256, (pages, layout.page_bytes), generator=generator, dtype=torch.int32)
    return IndexKCache(data.to(torch.uint8).to(DEVICE), layout)


def gather(backend: str, *args, **more) -> list[torch.Tensor]:
    """Keys and scales, as bytes."""
    with settings.override(index_gather_backend=backend, **more):
        return [part.view(torch.uint8) for part in index_gather(*args) if part is not None]


def expect_same_bits(*args, **more) -> None:
    for wanted, got in zip(gather("torch", *args), gather("triton", *args, **more), strict=True):
        assert torch.equal(got, wanted)


@needs_triton
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_are_those_in_the_cache(layout):
    """NaN keys and scales come out as they are, whatever the layout; missing pages give zeros."""
    table = ints(2, 0, 7, 1, 1, 9, -1, 3, 0).view(3, 3)
    lens = [it * layout.page_tokens // 4 for it in (12, 5, 14)]
    expect_same_bits(random_bytes(layout, 8), table, ints(*lens), sum(lens))


@needs_triton
def test_requests_are_found_whatever_their_lengths():
    """600 requests of 0 to 3 tokens: more than a program adds up at once, and empty ones in a row."""
    lens = [0] * 40 + [it * it % 4 for it in range(550)] + [0] * 10
    table = torch.arange(600, dtype=torch.int32, device=DEVICE)[:, None] % 50
    expect_same_bits(random_bytes(IndexKLayout(page_tokens=3), 50), table, ints(*lens, dtype=torch.int64), sum(lens))


@needs_triton
def test_a_page_table_may_be_a_part_of_a_wider_one():
    """Rows apart, and a single column of another table."""
    wide = torch.arange(24, dtype=torch.int32, device=DEVICE).view(4, 6) % 8
    cache = random_bytes(IndexKLayout(page_tokens=4), 8)
    expect_same_bits(cache, wide[:, 1:4], ints(12, 9, 3, 1), 25)
    expect_same_bits(cache, wide[:, 2:3], ints(4, 0, 3, 4), 11)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_model_format_gives_back_its_bits(dtype):
    """Any dtype and any number of channels, NaN with its own bits."""
    layout = IndexKLayout("model", page_tokens=4, head_dim=200, element_bytes=dtype.itemsize)
    data = torch.randn(5, 4, 200, generator=torch.Generator().manual_seed(3)).to(DEVICE, dtype)
    data.view(torch.uint8)[2] = 0xFF
    expect_same_bits(IndexKCache(data, layout), ints(2, 0, 9, 1).view(2, 2), ints(7, 6), 13)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[1], LAYOUTS[3]])
def test_t26_the_last_page_beyond_two_gibibytes(layout, backend):
    """T26: its byte address does not fit an int32, and what it holds is what comes back."""
    pages = 2**31 // layout.page_bytes + 100
    data = torch.zeros(pages, layout.page_bytes, dtype=torch.uint8, device=DEVICE)
    small = random_bytes(layout, 1)
    data[-1] = small.data[0]
    tokens = layout.page_tokens
    got = gather(backend, IndexKCache(data, layout), ints(pages - 1).view(1, 1), ints(tokens), tokens)
    for one, other in zip(got, gather("torch", small, ints(0).view(1, 1), ints(tokens), tokens), strict=True):
        assert torch.equal(one, other)


@needs_triton
@pytest.mark.parametrize("launch", ["tokens=1", "tokens=64", "lens=2", "warps=1"])
def test_launch_parameters_change_nothing(launch):
    """Whatever `kernel_launch` says, the bits are the same."""
    table = ints(2, 0, 7, 1, 1, 3).view(3, 2)
    cache = random_bytes(LAYOUTS[0], 8)
    expect_same_bits(cache, table, ints(70, 128, 1), 199, kernel_launch=f"index_gather.triton.{launch}")


@needs_triton
def test_a_cache_whose_tensor_was_restrided_is_refused():
    """What is not contiguous is refused in words."""
    cache = random_bytes(LAYOUTS[0], 4)
    cache.data.as_strided_((2, 8448), (2 * 8448, 1))
    with pytest.raises(UnsupportedCall, match=r"triton: the cache's tensor has strides \[16896, 1\]"):
        gather("triton", cache, ints(0).view(1, 1), ints(3), 3)
