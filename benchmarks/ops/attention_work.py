"""Sparse attention over bf16 rows (prefill) and over the FP8 cache (decode), beside flash_mla."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.ops.work import Bar, Work, relative_error
from dsa_config import settings
from dsa_exec import MlaCache, sparse_mla_decode, sparse_mla_prefill
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.views import read_mla_tokens

WIDTH, VALUES, K = 576, 512, 2048
SCALE = WIDTH**-0.5
LAYOUT = MlaLayout()
PREFILL = 4096, 65536
CONTEXT, MOST_REQUESTS = 32768, 256
PADDED = "flash_mla, padded"


class Attended(NamedTuple):
    """Arguments of both: `kv` are rows in prefill, and the cache in decode."""

    q: torch.Tensor
    kv: Any
    indices: torch.Tensor


def _padded(q: torch.Tensor) -> torch.Tensor:
    """As a user of flash_mla must: it takes 64 or 128 heads."""
    heads = q.shape[1]
    taken = 64 if heads <= 64 else 128
    if taken == heads:
        return q
    wide = q.new_zeros(q.shape[0], taken, WIDTH)
    wide[:, :heads] = q
    return wide


def picks(generator: torch.Generator, rows: int, population: int) -> torch.Tensor:
    """K different numbers a row, ascending, as our top-k gives them."""
    parts = [
        torch.rand(len(part), population, device="cuda", generator=generator).topk(K, sorted=False).indices
        for part in torch.empty(rows, 0).split(256)
    ]
    return torch.cat(parts).sort(1).values


def _wrong(rows_of: Callable[[Attended, torch.Tensor], torch.Tensor]) -> Callable[[Attended, Any], str | None]:
    def wrong(it: Attended, result: Any) -> str | None:
        for row in {0, it.q.shape[0] - 1}:
            picked = rows_of(it, it.indices[row].long()).double()
            weights = torch.softmax(it.q[row].double() @ picked.T * SCALE, dim=1)
            error = relative_error(result[0][row], weights @ picked[:, :VALUES])
            if not error < 4e-3:
                return f"row {row} is off by {error:.1e}"
        return None

    return wrong


def _on(op: str, backend: str, run: Callable[[Attended], Any]) -> Callable[[Attended], Any]:
    """A call of an op on a backend that is named: `auto` would take flash_mla where it is faster."""

    def named(it: Attended) -> Any:
        with settings.override(**{f"{op}_backend": backend}):
            return run(it)

    return named


def _prefill(it: Attended) -> Any:
    return sparse_mla_prefill(it.q, it.kv, it.indices, sm_scale=SCALE)


def _decode(it: Attended) -> Any:
    return sparse_mla_decode(it.q, it.kv, it.indices, sm_scale=SCALE)


@functools.cache
def _rows(count: int) -> torch.Tensor:
    return torch.randn(count, WIDTH, device="cuda", generator=torch.Generator("cuda").manual_seed(0)).bfloat16()


def _prefill_inputs(rows: int, keys: int, heads: int) -> Callable[[int], Attended]:
    def make(seed: int) -> Attended:
        generator = torch.Generator("cuda").manual_seed(seed + 1)
        q = torch.randn(rows, heads, WIDTH, device="cuda", generator=generator).bfloat16()
        return Attended(q, _rows(keys), picks(generator, rows, keys).to(torch.int32))

    return make


def _flash_prefill() -> Callable[[Attended], Any]:
    attend = importlib.import_module("flash_mla").flash_mla_sparse_fwd
    options = {"use_legacy": True} if "use_legacy" in inspect.signature(attend).parameters else {}

    def run(it: Attended) -> Any:
        heads = it.q.shape[1]
        out, *_ = attend(_padded(it.q), it.kv[:, None], it.indices[:, None], SCALE, **options)
        return out[:, :heads]

    return run


@functools.cache
def mla_cache() -> MlaCache:
    """The FP8 cache that all work reads parts of."""
    data = torch.empty(MOST_REQUESTS * CONTEXT, LAYOUT.token_bytes, dtype=torch.uint8, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    for part in data.split(1 << 19):
        latent = torch.randn(len(part), VALUES, device="cuda", generator=generator) * 64
        part[:, :VALUES] = latent.to(E4M3).view(torch.uint8)
        exponents = torch.randint(-8, -5, (len(part), 4), device="cuda", generator=generator)
        part[:, LAYOUT.scales_offset_bytes : LAYOUT.rope_offset_bytes] = torch.exp2(exponents.float()).view(torch.uint8)
        rope = torch.randn(len(part), LAYOUT.rope_dim, device="cuda", generator=generator).bfloat16()
        part[:, LAYOUT.rope_offset_bytes :] = rope.view(torch.uint8)
    return MlaCache(data, LAYOUT)


def _decode_inputs(requests: int, heads: int) -> Callable[[int], Attended]:
    def make(seed: int) -> Attended:
        generator = torch.Generator("cuda").manual_seed(seed + 1)
        cache = mla_cache()
        pages = torch.randperm(cache.slots // 64, device="cuda", generator=generator)[: requests * CONTEXT // 64]
        table = pages.view(requests, -1)
        picked = picks(generator, requests, CONTEXT)
        slots = table.gather(1, picked // 64) * 64 + picked % 64
        q = torch.randn(requests, heads, WIDTH, device="cuda", generator=generator).bfloat16()
        return Attended(q, cache, slots.to(torch.int32))

    return make


def _flash_decode() -> Callable[[Attended], Any]:
    vendor = importlib.import_module("flash_mla")
    attend = vendor.flash_mla_with_kvcache
    options = {"use_legacy": True} if "use_legacy" in inspect.signature(attend).parameters else {}
    schedules: dict[tuple[int, int], Any] = {}

    def run(it: Attended) -> Any:
        rows, heads, _ = it.q.shape
        schedule = schedules.setdefault((rows, heads), vendor.get_mla_metadata()[0])
        cache = it.kv.data.view(E4M3).view(-1, LAYOUT.page_tokens, 1, LAYOUT.token_bytes)
        out, *_ = attend(
            _padded(it.q)[:, None], cache, None, None, VALUES, schedule, None, SCALE, False, True, it.indices[:, None],
            **options,
        )  # fmt: skip
        return out[:, 0, :heads]

    return run


def prefill(heads: int, *, backend: str | None = None, bar: Bar | None = None) -> Work:
    """4096 rows of so many heads that select among 65536.

    Args:
        heads: of the attention.
        backend: what ours runs on, in the place of what the settings say.
        bar: what ours must reach.
    """
    rows, keys = PREFILL
    return Work(
        op="sparse_mla_prefill",
        name=f"{rows}x{keys}, {heads} heads",
        inputs=_prefill_inputs(rows, keys, heads),
        ours=_prefill if backend is None else _on("sparse_mla_prefill", backend, _prefill),
        wrong=_wrong(lambda it, picked: it.kv[picked]),
        min_bytes=keys * WIDTH * 2 + rows * (heads * (WIDTH + VALUES) * 2 + K * 4),
        flops=2.0 * rows * heads * K * (WIDTH + VALUES),
        unit="bf16",
        vendors={PADDED: _flash_prefill},
        bar=bar,
    )


def decode(requests: int, heads: int, *, backend: str | None = None, bar: Bar | None = None) -> Work:
    """A step of so many requests, as replays; arguments as for `prefill`."""
    return Work(
        op="sparse_mla_decode",
        name=f"{requests} requests of {CONTEXT}, {heads} heads",
        inputs=_decode_inputs(requests, heads),
        ours=_decode if backend is None else _on("sparse_mla_decode", backend, _decode),
        wrong=_wrong(lambda it, slots: read_mla_tokens(it.kv.data, LAYOUT, slots)),
        min_bytes=requests * (K * LAYOUT.token_bytes + heads * (WIDTH + VALUES) * 2),
        flops=2.0 * requests * heads * K * (WIDTH + VALUES),
        unit="bf16",
        vendors={PADDED: _flash_decode},
        captured=True,
        bar=bar,
    )


def works() -> Iterator[Work]:
    """Prefill of 4096 rows; decode of one request to many, as replays."""
    prefill_bars = {128: Bar(ratio=1.15), 16: Bar(ratio=0.6)}
    for heads in (8, 16, 32, 64, 128):
        work = prefill(heads, backend="gluon", bar=prefill_bars.get(heads))
        work.vendors["flash_mla, by the op"] = lambda: _on("sparse_mla_prefill", "flash_mla", _prefill)
        yield work
    few_heads = {1: Bar(ratio=0.45), 32: Bar(ratio=0.6), 128: Bar(ratio=0.72)}
    decode_bars = {(requests, heads): bar for requests, bar in few_heads.items() for heads in (8, 16)}
    decode_bars[32, 128] = Bar(ratio=1.35)
    for requests in (1, 32, 128):
        for heads in (8, 16, 64, 128):
            work = decode(requests, heads, backend="gluon", bar=decode_bars.get((requests, heads)))
            work.vendors["flash_mla, by the op"] = lambda: _on("sparse_mla_decode", "flash_mla", _decode)
            yield work
