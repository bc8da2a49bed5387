"""`index_select` that scores and selects in one: exact on every input, however the work is shared out."""

from __future__ import annotations

import random
from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import GatheredKeys, PagedKeys, index_select
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.logits_workspace import LogitsWorkspace
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.registry import backend as backend_named
from dsa_exec.dispatch.select import decide
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.index_select import Call
from dsa_exec.ops.index_select.launch import LEAST_SPAN, PROGRAMS, portable_launch
from dsa_exec.ops.index_select.on_triton import MOST_HEADS

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = "index_select.triton.capacity=128 index_select.triton.block=32 index_select.triton.tile_keys=32"
SPANS = f"{SMALL} index_select.triton.span_keys=96"
SHAPES = 1000 if torch.cuda.is_available() else 12


def whole(generator: torch.Generator, *shape: int, most: int = 2) -> torch.Tensor:
    """Small whole numbers, whose products and sums every kernel gets exactly: equal scores in plenty."""
    return torch.randint(-most, most + 1, shape, generator=generator).float()


def gathered(generator, windows, key_count, heads=4, *, keys=None, quantised=True):
    """Arguments of `index_select` for these windows."""
    dtype = E4M3 if quantised else torch.float32
    keys = whole(generator, key_count, 128) if keys is None else keys
    scales = 2.0 ** torch.randint(-2, 3, (key_count,), generator=generator)
    starts, ends = (torch.tensor(bounds, dtype=torch.int32, device=DEVICE) for bounds in zip(*windows, strict=True))
    given = GatheredKeys(keys.to(DEVICE, dtype), scales.to(DEVICE) if quantised else None, starts, ends)
    q = whole(generator, len(windows), heads, 128).to(DEVICE, dtype)
    return q, whole(generator, len(windows), heads).to(DEVICE), given


def paged(generator, lens, heads=4, *, page_tokens=64, order="plain"):
    """Arguments of `index_select` for requests of these lengths, on pages in any order."""
    longest = max(max(row) for row in lens)
    pages = max(-(-longest // page_tokens), 1)
    layout = IndexKLayout(page_tokens=page_tokens, order=order)
    data = torch.zeros(len(lens) * pages, layout.page_bytes, dtype=torch.uint8)
    keys = whole(generator, len(lens) * pages, page_tokens * 128).to(E4M3)
    data[:, : layout.scales_offset_bytes] = keys.view(torch.uint8)
    scales = 2.0 ** torch.randint(-2, 3, (len(lens) * pages, page_tokens), generator=generator)
    data[:, layout.scales_offset_bytes :] = scales.view(torch.uint8)
    table = torch.randperm(len(lens) * pages, generator=generator).reshape(len(lens), pages).to(DEVICE, torch.int32)
    context_lens = torch.tensor(lens, dtype=torch.int32, device=DEVICE)
    q = whole(generator, len(lens), len(lens[0]), heads, 128).to(DEVICE, E4M3)
    weights = whole(generator, len(lens) * len(lens[0]), heads).to(DEVICE)
    return q, weights, PagedKeys(IndexKCache(data.to(DEVICE), layout), table, context_lens)


def by(backend, arguments, k, launch="", **more):
    # Apart means the specification: a vendor's kernel may take infinite scales otherwise.
    apart = dict.fromkeys(("mqa_logits_backend", "paged_mqa_logits_backend", "topk_backend"), "torch")
    with settings.override(index_select_backend=backend, kernel_launch=launch, **apart, **more):
        return index_select(*arguments, k).indices


def check_the_same(arguments, k, launch="", **more):
    """The fused kernels select what logits and topk apart select."""
    assert torch.equal(by("triton", arguments, k, launch, **more), by("torch", arguments, k, **more))


def causal(rows, first=0):
    return [(0, first + row + 1) for row in range(rows)]


@pytest.mark.parametrize("launch", ["", SMALL, SPANS], ids=["one", "small", "spans"])
@pytest.mark.parametrize("heads", [1, 3, 32, 64])
def test_prefill(launch, heads):
    """Windows of several requests, empty ones, and more rows than a program takes."""
    generator = torch.Generator().manual_seed(heads)
    windows = [*causal(9, 300), (0, 0), (310, 300), (250, 420), (419, 420), (100, 117), *causal(3)]
    check_the_same(gathered(generator, windows, 420, heads), 40, launch)


@pytest.mark.parametrize("launch", ["", SMALL, SPANS], ids=["one", "small", "spans"])
@pytest.mark.parametrize("next_n", [1, 2, 3, 8])
@pytest.mark.parametrize("fuse_topk", [True, False])
def test_decode(launch, next_n, fuse_topk):
    """Requests of any length, with 1 to 8 rows each; slots made in the kernel, or positions first."""
    generator = torch.Generator().manual_seed(next_n)
    lens = [[max(length - next_n + row + 1, 0) for row in range(next_n)] for length in (500, 1, 64, 333)]
    check_the_same(paged(generator, lens, 8), 40, launch, fuse_topk=fuse_topk)


@pytest.mark.parametrize(("page_tokens", "order"), [(1, "plain"), (16, "plain"), (64, "preshuffled")])
def test_pages_of_every_kind(page_tokens, order):
    """Pages of one token, of few, and preshuffled ones."""
    arguments = paged(torch.Generator().manual_seed(1), [[300], [70]], page_tokens=page_tokens, order=order)
    check_the_same(arguments, 50, SPANS)


def hard_scores(kind: str, width: int, generator) -> torch.Tensor:
    """Scores, one a key, that defeat shortcuts. All of them are sums of a few e4m3 numbers."""
    at = torch.arange(width)
    return {
        "all equal": torch.ones(width),
        "all zero": torch.zeros(width),
        "rising": at // 4 * 0.5,
        "falling": (width - at) // 4 * 0.5,
        "99 % zero": torch.where(torch.rand(width, generator=generator) < 0.01, 3.0, 0.0),
        "99 % one, some less": torch.where(torch.rand(width, generator=generator) < 0.01, -3.0, 1.0),
        "all negative": -1.0 - torch.randint(0, 9, (width,), generator=generator),
        "a narrow range": 256.0 + torch.randint(0, 2, (width,), generator=generator),
        "the best at the end": torch.where(at > width - 30, 7.0, torch.where(at % 3 == 0, 5.0, 1.0)),
        "the best at the start": torch.where(at < 30, 7.0, torch.where(at % 3 == 0, 5.0, 1.0)),
        "infinite": torch.where(at % 7 == 0, torch.inf, torch.where(at % 5 == 0, -torch.inf, 1.0)),
        "no number": torch.where(at % 7 == 0, torch.nan, 1.0),
    }[kind]


HARD = [
    "all equal", "all zero", "rising", "falling", "99 % zero", "99 % one, some less", "all negative",
    "a narrow range", "the best at the end", "the best at the start", "infinite", "no number",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of NumPy, under the interpreter: 0 * inf
@pytest.mark.parametrize("launch", [SMALL, SPANS], ids=["small", "spans"])
@pytest.mark.parametrize("kind", HARD)
def test_hard_scores(kind, launch):
    """Ties without end, ramps, narrow ranges, zeros, infinities: the same set, the lowest positions of equal ones."""
    generator = torch.Generator().manual_seed(5)
    scores = hard_scores(kind, 500, generator)
    keys = torch.zeros(500, 128)
    keys[:, 0] = 1.0
    windows = [(0, 500), (0, 499), (13, 400), (250, 500), (0, 41), (3, 44)]
    q, weights, given = gathered(generator, windows, 500, 2, keys=keys)
    q = torch.zeros_like(q.float())
    q[:, 0, 0] = 1.0
    weights = torch.ones_like(weights)
    given = GatheredKeys(given.keys, scores.to(DEVICE), given.starts, given.ends)  # the scales are the scores
    check_the_same((q.to(E4M3), weights, given), 41, launch)


def test_random_shapes():
    """Any windows, lengths, heads, numbers to select and ways to share the work out."""
    rng = random.Random(7)
    for number in range(SHAPES):
        generator = torch.Generator().manual_seed(number)
        k = rng.choice([1, 2, 5, 16, 40, 64, 90])
        tile = rng.choice([16, 32, 64])
        block = rng.choice([16, 32, 64])
        capacity = 1 << (k + max(tile, block) - 1).bit_length() + rng.choice([0, 0, 1])
        span = tile * rng.choice([1, 2, 5, 1000])
        parts = {"capacity": capacity, "block": block, "tile_keys": tile, "span_keys": span}
        parts["programs"] = rng.choice([1, 3, 100])
        launch = " ".join(f"index_select.triton.{name}={value}" for name, value in parts.items())
        heads = rng.choice([1, 2, 8, 24])
        if rng.random() < 0.5:
            width = rng.randint(1, 700)
            bounds = [sorted(rng.choices(range(width + 1), k=2)) for _ in range(rng.randint(1, 12))]
            arguments = gathered(generator, bounds, width, heads, quantised=rng.random() < 0.7)
        else:
            next_n = rng.randint(1, 8)
            lens = [[rng.randint(0, 500) for _ in range(next_n)] for _ in range(rng.randint(1, 4))]
            arguments = paged(generator, lens, heads, page_tokens=rng.choice([1, 16, 64]))
        check_the_same(arguments, k, launch)


def test_every_run_and_every_sharing_is_the_same():
    """With scores that are no whole numbers: the same bits from run to run, and however the work is shared out."""
    generator = torch.Generator().manual_seed(3)
    q, weights, keys = gathered(generator, causal(6, 600), 606, 32)
    keys = GatheredKeys(
        torch.randn(606, 128, generator=generator).to(DEVICE, E4M3), keys.scales, keys.starts, keys.ends
    )
    arguments = q, weights, keys
    first = by("triton", arguments, 50)
    for launch in ("", SMALL, SPANS, f"{SPANS} index_select.triton.programs=2"):
        assert torch.equal(by("triton", arguments, 50, launch), first)
    for rows in (slice(0, 1), slice(2, 6)):
        part = q[rows], weights[rows], keys.of_rows(rows)
        assert torch.equal(by("triton", part, 50, SMALL), first[rows])


def test_its_memory_does_not_grow_with_the_context():
    """One chunk whatever the context, and no more than the output and a fixed workspace."""
    taken = set()
    for keys in (2**14, 2**16, 2**18):
        launch = portable_launch(4096, 1, 64, 128, keys, 2048, 1)
        taken.add(launch.scratch_bytes(launch.groups(4096), keys))
    assert len(taken) == 1
    assert max(taken) <= 34 * 2**20
    arguments = gathered(torch.Generator().manual_seed(0), causal(40, 60), 100)
    with settings.override(index_select_backend="triton", mqa_logits_max_chunk_bytes=3 * 2**20):
        assert index_select(*arguments, 16).chunks == 1


def test_few_rows_share_out_their_keys():
    """Of few rows the keys have several spans, of many one; no more programs at a time than a device runs."""
    for rows in (1, 4, 64, 4096):
        launch = portable_launch(rows, 1, 64, 128, 2**17, 2048, 1)
        groups = launch.groups(rows)
        assert launch.grid(groups, 2**17) <= PROGRAMS
        assert (launch.spans(2**17) > 1) == (groups <= PROGRAMS // 2)
        assert launch.span_keys >= min(LEAST_SPAN, 2**17)
        assert launch.refuses(64, 2048) is None


@pytest.mark.parametrize(
    ("launch", "sentence"),
    [
        ("capacity=100", "powers of two"),
        ("capacity=64", "capacity=64 has no room for 40"),
        ("tile_keys=8", "16 keys, 16 columns"),
        ("span_keys=100", "span_keys is a multiple of tile_keys"),
        ("programs=0", "one of the programs at least"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(launch, sentence):
    """Before anything is written where there is no room."""
    arguments = gathered(torch.Generator().manual_seed(0), causal(4, 100), 104)
    with pytest.raises(UnsupportedCall, match=sentence):
        by("triton", arguments, 40, f"index_select.triton.{launch}")


def test_what_it_does_not_take():
    """More heads than a product has columns for; told in its words."""
    arguments = gathered(torch.Generator().manual_seed(0), causal(2, 100), 102, MOST_HEADS + 1)
    with pytest.raises(UnsupportedCall, match=f"{MOST_HEADS + 1} heads of 128 channels"):
        by("triton", arguments, 40)


@pytest.mark.parametrize(
    "hw", [Capabilities("cpu", "cpu", "2.13", "3.9"), Capabilities("cuda", "sm90", "2.11", "3.6.0")]
)
def test_auto_leaves_it(hw):
    """Where it is interpreted, and on GPUs, where it is slower than logits and top-k apart."""
    q, weights, keys = gathered(torch.Generator().manual_seed(0), causal(2, 100), 102)
    call = Call(q, weights, keys, 40, True, "auto", LogitsWorkspace(DEVICE))
    wanted = "interpreted on the cpu" if hw.arch == "cpu" else "2.8 times on an H100"
    assert wanted in backend_named("index_select", "triton").declines(call, hw)
    assert decide("index_select", call, DEVICE).backend.name == "torch"
