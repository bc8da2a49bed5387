"""Calls as they come in serving, for every op: to ask what would run them, without running or allocating anything."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dsa_config import settings
from dsa_exec.cli.doctor.phase_calls import Phase


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of typical calls; the others are those of DeepSeek-V3.2.

    Attributes:
        heads: attention heads on a device; 128 in all, 16 on each of eight.
        index_heads: index heads.
        next_n: rows a request in decode: 1, or more where drafts are verified.
        batch: requests in decode.
        rows: query rows in prefill, of one request.
        context: tokens of a request.
    """

    heads: tuple[int, ...] = (16, 128)
    index_heads: int = 64
    next_n: tuple[int, ...] = (1, 2)
    batch: int = 64
    rows: int = 4096
    context: int = 32768


@dataclass(frozen=True, slots=True)
class TypicalWork:
    """One typical call.

    Attributes:
        op: the op.
        words: the phase that it comes in.
        make: makes the op's Call; raises what allocating its cache raises.
    """

    op: str
    words: str
    make: Callable[[], Any]


def typical_work(sizes: Sizes) -> tuple[TypicalWork, ...]:
    """The typical calls of every op. Making them reads settings as of then, for the device assumed.

    Attention has a call for each way that a batch may go (`runtime/attention_path.py`), whichever way is taken.
    """
    return (*_prefill(sizes), *(work for n in sizes.next_n for work in _decode(sizes, n)))


def decode_words(n: int) -> str:
    """The phase in which each request has n rows."""
    return "decode" if n == 1 else f"verify (next_n={n})"


def _prefill(sizes: Sizes) -> Iterator[TypicalWork]:
    phase = Phase(requests=1, rows=sizes.rows, index_heads=sizes.index_heads, context=sizes.context)
    words = "prefill"
    yield TypicalWork("index_quant", words, phase.index_quant)
    yield TypicalWork("index_store", words, phase.index_store)
    yield TypicalWork("index_gather", words, phase.index_gather)
    yield TypicalWork("mqa_logits", words, phase.mqa_logits)
    yield TypicalWork("topk", words, phase.topk_of_gathered)
    yield TypicalWork("topk_candidates", words, phase.topk_candidates_of_gathered)
    yield TypicalWork("topk_merge", words, phase.topk_merge_of_gathered)
    yield TypicalWork("index_select", words, phase.index_select_of_gathered)
    yield TypicalWork("kv_store", words, phase.kv_store)
    yield TypicalWork("kv_gather", words, phase.kv_gather)
    for heads in sizes.heads:
        make = functools.partial(phase.dense_mla_prefill, heads)
        yield TypicalWork("dense_mla_prefill", f"dense {words}, {heads} heads", make)
        make = functools.partial(phase.sparse_mla_prefill, heads)
        yield TypicalWork("sparse_mla_prefill", f"sparse_bf16 {words}, {heads} heads", make)
        if settings.kv_format == "fp8":
            make = functools.partial(phase.sparse_mla_decode, heads)
            yield TypicalWork("sparse_mla_decode", f"fp8_kv {words}, {heads} heads", make)
        make = functools.partial(phase.attention_merge, heads)
        yield TypicalWork("attention_merge", f"{words}, {heads} heads", make)


def _decode(sizes: Sizes, n: int) -> Iterator[TypicalWork]:
    b = sizes.batch
    phase = Phase(requests=b, rows=b * n, index_heads=sizes.index_heads, context=sizes.context)
    words = decode_words(n)
    yield TypicalWork("index_quant", words, phase.index_quant)
    yield TypicalWork("index_store", words, phase.index_store)
    yield TypicalWork("paged_mqa_logits", words, phase.paged_mqa_logits)
    yield TypicalWork("topk", words, phase.topk_of_paged)
    yield TypicalWork("topk_candidates", words, phase.topk_candidates_of_paged)
    yield TypicalWork("topk_merge", words, phase.topk_merge_of_paged)
    yield TypicalWork("index_select", words, phase.index_select_of_paged)
    yield TypicalWork("kv_store", words, phase.kv_store)
    for heads in sizes.heads:
        make = functools.partial(phase.sparse_mla_decode, heads)
        yield TypicalWork("sparse_mla_decode", f"{words}, {heads} heads", make)
        make = functools.partial(phase.attention_merge, heads)
        yield TypicalWork("attention_merge", f"{words}, {heads} heads", make)
    yield TypicalWork("step_metadata", words, phase.step_metadata)
