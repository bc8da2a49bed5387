"""What an op is not made for is an error that names the argument, what came and what is wanted."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch

import dsa_exec
from dsa_config import settings
from dsa_exec.caches.samples import random_index_k_cache, random_mla_cache
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import ArgumentError, DeviceError, DtypeError, RangeError, ShapeError, StrideError
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout

CPU = torch.device("cpu")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def good(op: str) -> dict[str, object]:
    """The arguments of the first case of the op's contract."""
    return importlib.import_module(f"dsa_exec.ops.{op}.contract").CONTRACT.cases[0].make(generator(), CPU)


def expect_error(error: type[Exception], words: str, op: str, **changes) -> None:
    with pytest.raises(error, match=rf"^{op}: {words}"):
        getattr(dsa_exec, op)(**{**good(op), **changes})


def ints(*numbers: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype)


WRONG = [
    ("index_quant", ShapeError, r"q has shape \[5, 128\]; wanted \[t, h, 128\]", {"q": torch.zeros(5, 128)}),
    ("index_quant", ShapeError, r"q has shape \[5, 32, 64\], with 64 at", {"q": torch.zeros(5, 32, 64)}),
    ("index_quant", ShapeError, r"weights has shape \[5, 31\].*h=32", {"weights": torch.zeros(5, 31)}),
    ("index_quant", DtypeError, "q is int32; wanted float32 or", {"q": torch.zeros(5, 32, 128, dtype=torch.int32)}),
    ("index_quant", DtypeError, "q is list; wanted a tensor of", {"q": [1.0]}),
    ("index_quant", StrideError, r"q has strides .*\.contiguous\(\)", {"q": torch.zeros(5, 128, 32).transpose(1, 2)}),
    ("index_quant", DeviceError, "weights is on meta; wanted cpu", {"weights": torch.zeros(5, 32, device="meta")}),
    ("index_quant", ShapeError, "q has shape.*at least one head", {"q": torch.zeros(5, 0, 128)}),
    ("index_quant", DtypeError, "layout is NoneType; wanted IndexKLayout", {"layout": None}),
    ("index_store", ShapeError, r"slots has shape \[2\]", {"slots": ints(0, 1)}),
    ("index_store", DtypeError, "slots is float32; wanted int32 or int64", {"slots": torch.zeros(6)}),
    ("index_store", RangeError, r"slots holds 192 at \[5\]; wanted -1 to 191", {"slots": ints(0, 1, 2, 3, 4, 192)}),
    ("index_store", RangeError, r"slots holds -2 at \[1\]", {"slots": ints(0, -2, 2, 3, 4, 5)}),
    ("index_gather", DtypeError, "page_table is int64", {"page_table": torch.zeros(3, 2, dtype=torch.int64)}),
    ("index_gather", ShapeError, "seq_lens has shape", {"seq_lens": ints(1)}),
    ("index_gather", RangeError, r"seq_lens holds -1 at \[0\]", {"seq_lens": ints(-1, 0, 0), "total_tokens": None}),
    ("index_gather", RangeError, "total_tokens is 7; wanted 199, the sum", {"total_tokens": 7}),
    ("index_gather", RangeError, "total_tokens is 200; wanted 199, the sum", {"total_tokens": 200}),
    ("index_gather", RangeError, "total_tokens is 3.0; wanted an integer", {"total_tokens": 3.0}),
    ("index_gather", RangeError, "total_tokens is True; wanted an integer", {"total_tokens": True}),
    ("mqa_logits", DtypeError, "scales is None; wanted scales with e4m3 keys", {"scales": None}),
    ("mqa_logits", DtypeError, "keys is float32; wanted float8_e4m3fn", {"keys": torch.zeros(14, 128)}),
    ("mqa_logits", ShapeError, "scales has shape", {"scales": torch.zeros(13)}),
    ("mqa_logits", ShapeError, "head_weights has shape", {"head_weights": torch.zeros(5, 31)}),
    ("mqa_logits", RangeError, r"ends holds 15 at \[4\]; wanted 0 to 14", {"ends": ints(8, 9, 10, 13, 15)}),
    ("mqa_logits", RangeError, r"starts holds -1 at \[0\]", {"starts": ints(-1, 0, 0, 10, 10)}),
    ("mqa_logits", ShapeError, "starts has shape", {"starts": ints(0)}),
    ("mqa_logits", ShapeError, "out has shape", {"out": torch.zeros(5, 15)}),
    ("mqa_logits", StrideError, r"out has strides \[0, 1\].*overlap", {"out": torch.zeros(1, 14).expand(5, 14)}),
    ("mqa_logits", StrideError, "out has strides", {"out": torch.zeros(99).as_strided((5, 14), (13, 1))}),
    ("paged_mqa_logits", StrideError, "out has strides", {"out": torch.zeros(1, 128).expand(3, 128)}),
    (
        "paged_mqa_logits",
        RangeError,
        "context_lens holds 129 .*; wanted 0 to 128",
        {"context_lens": ints(70, 129, 1)[:, None], "max_context_len": 500},
    ),
    ("paged_mqa_logits", ShapeError, "context_lens has shape", {"context_lens": ints(70, 128, 1)}),
    ("paged_mqa_logits", RangeError, "context_lens holds 129", {"context_lens": ints(70, 129, 1)[:, None]}),
    ("paged_mqa_logits", RangeError, "max_context_len is -1", {"max_context_len": -1}),
    ("paged_mqa_logits", ShapeError, "page_table has shape", {"page_table": torch.zeros(2, 2, dtype=torch.int32)}),
    ("paged_mqa_logits", ShapeError, r"out has shape", {"out": torch.zeros(3, 5)}),
    ("topk", DtypeError, "logits is float64", {"logits": torch.zeros(5, 50, dtype=torch.float64)}),
    ("topk", DtypeError, "lengths is int64", {"lengths": torch.zeros(5, dtype=torch.int64)}),
    ("topk", ShapeError, "lengths has shape", {"lengths": ints(1, 2)}),
    ("topk", StrideError, "logits has strides", {"logits": torch.zeros(50, 5).T}),
    ("topk", RangeError, "k is 0; wanted an integer from 1 to 4096", {"k": 0}),
    ("topk", RangeError, "k is 4097", {"k": 4097}),
    ("topk", RangeError, "k is 2.0", {"k": 2.0}),
    ("topk", RangeError, "k is True", {"k": True}),
    ("topk", DtypeError, "slot_map is Tensor; wanted SlotMap", {"slot_map": torch.zeros(1, 4, dtype=torch.int32)}),
    (
        "topk",
        RangeError,
        "slot_map.page_tokens is 0; wanted an integer of at least 1",
        {"slot_map": dsa_exec.SlotMap(torch.zeros(1, 4, dtype=torch.int32), 0, ints(0, 0, 0, 0, 0))},
    ),
    ("topk", RangeError, r"row_starts holds 51 at \[0\]", {"row_starts": ints(51, 0, 0, 0, 0)}),
    (
        "topk",
        RangeError,
        r"slot_map.request_of_row holds 1 at \[4\]; wanted 0 to 0",
        {"slot_map": dsa_exec.SlotMap(torch.zeros(1, 4, dtype=torch.int32), 16, ints(0, 0, 0, 0, 1))},
    ),
    ("index_select", DtypeError, "keys is NoneType; wanted GatheredKeys or PagedKeys", {"keys": None}),
    ("index_select", ShapeError, "q has shape", {"q": torch.zeros(5, 32)}),
    ("index_select", ShapeError, "head_weights has shape", {"head_weights": torch.zeros(2, 32)}),
    ("kv_store", ShapeError, "latent has shape", {"latent": torch.zeros(6, 511)}),
    ("kv_store", DtypeError, "rope is bfloat16; wanted float32", {"rope": torch.zeros(6, 64, dtype=torch.bfloat16)}),
    ("kv_store", RangeError, "slots holds 192", {"slots": ints(0, 1, 2, 3, 4, 192)}),
    ("kv_gather", DtypeError, "dtype is torch.int8", {"dtype": torch.int8}),
    ("sparse_mla_prefill", ShapeError, "kv has shape", {"kv": torch.zeros(90, 575)}),
    ("sparse_mla_prefill", DtypeError, "kv is bfloat16", {"kv": torch.zeros(90, 576, dtype=torch.bfloat16)}),
    ("sparse_mla_prefill", DtypeError, "indices is int64", {"indices": torch.zeros(3, 64, dtype=torch.int64)}),
    ("sparse_mla_prefill", RangeError, "sm_scale is None; wanted a finite number", {"sm_scale": None}),
    ("sparse_mla_prefill", RangeError, "sm_scale is 'x'", {"sm_scale": "x"}),
    ("sparse_mla_decode", RangeError, "sm_scale is nan", {"sm_scale": float("nan")}),
    ("sparse_mla_prefill", RangeError, "d_v is 577; wanted an integer from 1 to 576", {"d_v": 577}),
    ("sparse_mla_prefill", ShapeError, "attn_sink has shape", {"attn_sink": torch.zeros(15)}),
    ("dense_mla_prefill", ShapeError, "kv has shape", {"kv": torch.zeros(14, 575)}),
    ("dense_mla_prefill", DtypeError, "kv is bfloat16", {"kv": torch.zeros(14, 576, dtype=torch.bfloat16)}),
    ("dense_mla_prefill", DtypeError, "starts is int64", {"starts": torch.zeros(5, dtype=torch.int64)}),
    ("dense_mla_prefill", ShapeError, "ends has shape", {"ends": ints(0)}),
    ("dense_mla_prefill", RangeError, r"ends holds 15 at \[4\]; wanted 0 to 14", {"ends": ints(8, 9, 10, 13, 15)}),
    ("dense_mla_prefill", RangeError, r"starts holds -1 at \[0\]", {"starts": ints(-1, 0, 0, 10, 10)}),
    ("dense_mla_prefill", RangeError, "d_v is 0; wanted an integer from 1 to 576", {"d_v": 0}),
    ("dense_mla_prefill", RangeError, "sm_scale is nan", {"sm_scale": float("nan")}),
    ("dense_mla_prefill", ShapeError, "attn_sink has shape", {"attn_sink": torch.zeros(15)}),
    ("sparse_mla_decode", ShapeError, "q has shape", {"q": torch.zeros(3, 16, 512)}),
    ("sparse_mla_decode", ShapeError, "slots has shape", {"slots": torch.zeros(2, 64, dtype=torch.int32)}),
    ("sparse_mla_decode", ShapeError, "attn_sink has shape", {"attn_sink": torch.zeros(15)}),
]


@pytest.mark.parametrize(("op", "error", "words", "changes"), WRONG)
def test_the_error_names_argument_value_and_want(op, error, words, changes):
    """Each op refuses what it is not made for, before it computes anything."""
    expect_error(error, words, op, **changes)


GATHERED = good("index_select")["keys"]
ROWS, KEYS = len(GATHERED.starts), len(GATHERED.keys)


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (DtypeError, "keys.keys is list; wanted a tensor of float8_e4m3fn", {"keys": [1, 2]}),
        (DtypeError, "keys.keys is float32", {"keys": torch.zeros(KEYS, 128)}),
        (ShapeError, r"keys.keys has shape \[\]", {"keys": torch.tensor(1.0).to(torch.float8_e4m3fn)}),
        (ShapeError, "keys.keys has shape.*, with 64 at", {"keys": GATHERED.keys[:, :64].contiguous()}),
        (DtypeError, "keys.scales is None; wanted scales with e4m3 keys", {"scales": None}),
        (ShapeError, "keys.scales has shape", {"scales": torch.zeros(KEYS + 1)}),
        (DtypeError, "keys.starts is NoneType", {"starts": None}),
        (ShapeError, "keys.starts has shape", {"starts": ints(*[0] * (ROWS + 1))}),
        (ShapeError, "keys.ends has shape", {"ends": ints(*[0] * (ROWS + 1))}),
        (DtypeError, "keys.ends is int64", {"ends": torch.zeros(ROWS, dtype=torch.int64)}),
        (RangeError, f"keys.ends holds {KEYS + 1} .*; wanted 0 to {KEYS}", {"ends": ints(*[KEYS + 1] * ROWS)}),
        (RangeError, "keys.starts holds -1", {"starts": ints(*[-1] * ROWS)}),
    ],
)
def test_every_field_of_gathered_keys_is_checked(error, words, changes):
    """By the selection itself, before it cuts anything into chunks."""
    expect_error(error, words, "index_select", keys=dataclasses.replace(GATHERED, **changes))


UNQUANTISED = random_index_k_cache(generator(), IndexKLayout("model", element_bytes=4), 2, CPU)


def paged(**changes: object) -> dict[str, object]:
    """A selection of two requests from a cache of two pages."""
    cache = random_index_k_cache(generator(), IndexKLayout(), 2, CPU)
    keys = dsa_exec.PagedKeys(cache, ints(0, 1)[:, None], ints(5, 64)[:, None])
    q = torch.zeros(2, 1, 4, 128).to(torch.float8_e4m3fn)
    return {"q": q, "head_weights": torch.zeros(2, 4), "keys": dataclasses.replace(keys, **changes), "k": 2}


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (DtypeError, "keys.cache is NoneType; wanted IndexKCache", {"cache": None}),
        (DtypeError, "keys.page_table is NoneType", {"page_table": None}),
        (DtypeError, "keys.page_table is int64", {"page_table": torch.zeros(2, 1, dtype=torch.int64)}),
        (ShapeError, "keys.page_table has shape", {"page_table": ints(0, 1, 0)[:, None]}),
        (ShapeError, "keys.context_lens has shape", {"context_lens": ints(5, 64, 1)[:, None]}),
        (ShapeError, "keys.context_lens has shape", {"context_lens": ints(5, 64, 1, 1).reshape(2, 2)}),
        (RangeError, r"keys.context_lens holds 65 at \[1, 0\]; wanted 0 to 64", {"context_lens": ints(5, 65)[:, None]}),
        (DtypeError, "q is float8_e4m3fn; wanted float32", {"cache": UNQUANTISED}),
    ],
)
def test_every_field_of_paged_keys_is_checked(error, words, changes):
    """As those of gathered keys, and that the queries are in the format of the cache."""
    expect_error(error, words, "index_select", **paged(**changes))


@pytest.mark.parametrize("k", [0, -1, 4097, 99999, 2.0, "2", True])
def test_k_is_checked_without_rows_too(k):
    """Where there is nothing to select for, as anywhere."""
    none = dataclasses.replace(GATHERED, starts=ints(), ends=ints())
    arguments = {"q": good("index_select")["q"][:0], "head_weights": torch.zeros(0, 32), "keys": none}
    expect_error(RangeError, f"k is {k!r}; wanted an integer from 1 to 4096", "index_select", k=k, **arguments)


def test_the_memory_is_a_reading():
    """Not a number of bytes: the budget needs to know which."""
    expect_error(DtypeError, "memory is str; wanted MemoryReading", "index_select", memory="5")


OTHER_CACHE = {
    "index_store": MlaLayout,
    "index_gather": MlaLayout,
    "paged_mqa_logits": MlaLayout,
    "kv_store": IndexKLayout,
    "kv_gather": IndexKLayout,
    "sparse_mla_decode": IndexKLayout,
}


@pytest.mark.parametrize("op", OTHER_CACHE)
def test_the_other_cache_is_refused(op):
    """Each op names the cache that it reads or writes; none at all is refused too."""
    layout = OTHER_CACHE[op]()
    make = random_mla_cache if isinstance(layout, MlaLayout) else random_index_k_cache
    other = make(generator(), layout, 1, CPU)
    wanted = "IndexKCache" if isinstance(layout, MlaLayout) else "MlaCache"
    expect_error(DtypeError, f"cache is {type(other).__name__}; wanted {wanted}", op, cache=other)
    expect_error(DtypeError, f"cache is NoneType; wanted {wanted}", op, cache=None)


@pytest.mark.parametrize("op", OTHER_CACHE)
def test_a_cache_elsewhere_is_refused(op):
    """A cache on another device than the tensors is an error of the op that was given both."""
    cache = good(op)["cache"]
    moved = dataclasses.replace(cache, data=cache.data.to("meta"))
    expect_error(
        DeviceError, r"\w+ is on (cpu; wanted meta, where cache|meta; wanted cpu, where q) is", op, cache=moved
    )


def test_the_cache_of_paged_keys_elsewhere_is_refused():
    """The same for the cache within the keys."""
    cache = random_index_k_cache(generator(), IndexKLayout(), 2, CPU)
    moved = dataclasses.replace(cache, data=cache.data.to("meta"))
    expect_error(DeviceError, "keys.cache is on meta; wanted cpu, where q is", "index_select", **paged(cache=moved))


def test_a_bad_slot_writes_nothing():
    """An error in one slot leaves the whole cache as it was."""
    args = good("index_store")
    before = args["cache"].data.clone()
    with pytest.raises(RangeError):
        dsa_exec.index_store(args["cache"], args["keys"], ints(0, 1, 2, 3, 4, 999))
    assert torch.equal(args["cache"].data, before)


def test_a_cache_on_another_device_is_named():
    """The cache counts among the arguments whose devices must agree."""
    meta = dsa_exec.IndexKCache(torch.zeros(1, 8448, dtype=torch.uint8, device="meta"), IndexKLayout())
    with pytest.raises(DeviceError, match="keys is on cpu; wanted meta, where cache is"):
        dsa_exec.index_store(meta, torch.zeros(1, 128), ints(0))


def test_one_wide_tensors_have_no_stride_to_be_wrong():
    """A last dimension of one element may have any stride."""
    args = Arguments("op")
    assert args.tensor(torch.zeros(3, 4).T[:, :1], "x", "a b", dtype=torch.float32) == (4, 1)


def test_accelerators_are_checked_only_on_demand():
    """Index values are looked at on the CPU always, elsewhere only if asked, because it means waiting."""
    args = Arguments("op")
    elsewhere = torch.zeros(3, dtype=torch.int32, device="meta")
    args.values(elsewhere, "x", low=5, high=6, on_accelerators=False)
    assert args.total(elsewhere, "x", 12, on_accelerators=False) == 12
    with pytest.raises((RangeError, NotImplementedError, RuntimeError)):
        args.values(elsewhere, "x", low=5, high=6, on_accelerators=True)
    with pytest.raises(RangeError):
        args.values(ints(3), "x", low=5, high=6, on_accelerators=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_debug_check_indices_checks_on_the_gpu():
    """Off, a bad slot writes nothing; on, it is an error."""
    cuda = torch.device("cuda")
    cache = random_index_k_cache(generator(), IndexKLayout(), 1, cuda)
    before = cache.data.clone()
    key, slot = torch.zeros(1, 128, device=cuda), torch.tensor([64], device=cuda)
    dsa_exec.index_store(cache, key, slot)
    assert torch.equal(cache.data, before)
    with settings.override(debug_check_indices=True), pytest.raises(RangeError, match="slots holds 64"):
        dsa_exec.index_store(cache, key, slot)


def test_errors_share_bases():
    """One except clause catches every argument error, and ValueError does too."""
    for kind in (ShapeError, DtypeError, StrideError, DeviceError, RangeError):
        assert issubclass(kind, ArgumentError)
        assert issubclass(kind, ValueError)
    assert random_mla_cache(generator(), MlaLayout(), 1, CPU).slots == 64
