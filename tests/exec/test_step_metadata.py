"""The rows of a decode or speculative step: their lengths, requests and pages, fresh or into given tensors."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec

import pytest
import torch
from live_tensors import Watch

import dsa_exec
from dsa_config import settings
from dsa_exec import StepMetadata, step_metadata
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import ArgumentError, DeviceError, DtypeError, RangeError, ShapeError, StrideError
from dsa_exec.runtime.lengths import cache_lens, expanded_lens

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = ["torch", pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="no Triton"))]
MODES = [("decode", 1), ("target_verify", 1), ("target_verify", 3), ("draft_extend", 2), ("draft_extend", 7)]


@pytest.fixture(params=BACKENDS)
def _backend(request):
    with settings.override(step_metadata_backend=request.param):
        yield


every_backend = pytest.mark.usefixtures("_backend")


def ints(*numbers: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype, device=DEVICE)


@every_backend
def test_the_published_lengths():
    """Verify, 10 tokens and 3 drafts: 13 in the cache, rows see 11, 12, 13. Drafts of 1 token: never below 0."""
    verify = step_metadata("target_verify", ints(10), 3)
    assert verify.cache_lens.tolist() == [13]
    assert verify.row_lens.tolist() == [11, 12, 13]
    assert verify.context_lens.tolist() == [[11, 12, 13]]
    extend = step_metadata("draft_extend", ints(1), 6)
    assert extend.row_lens.tolist() == [0, 0, 0, 0, 0, 1]
    assert extend.cache_lens.tolist() == [1]
    assert extend.page_table is None


@every_backend
def test_selected_lengths_and_sums():
    """With index_topk: what each row selects, and both sums from 0 on. Without it there are none."""
    verify = step_metadata("target_verify", ints(10, 0), 3, index_topk=12)
    assert verify.dsa_cache_lens.tolist() == [11, 12, 12, 1, 2, 3]
    assert verify.cu_cache_lens.tolist() == [0, 13, 16]
    assert verify.cu_dsa_cache_lens.tolist() == [0, 11, 23, 35, 36, 38, 41]
    plain = step_metadata("target_verify", ints(10, 0), 3)
    assert plain.dsa_cache_lens is plain.cu_cache_lens is plain.cu_dsa_cache_lens is None


@every_backend
def test_sums_end_at_the_largest_int32(monkeypatch):
    """More tokens than int32 can count, or lengths that nobody checked, give no negative sum."""
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    lens = ints(2**31 - 1, 7, 2**62, -3, dtype=torch.int64)
    metadata = step_metadata("decode", lens, index_topk=2048)
    assert metadata.cu_cache_lens.tolist() == [0] + [2**31 - 1] * 4
    assert metadata.cu_dsa_cache_lens.tolist() == [0, 2048, 2055, 4103, 4103]


@every_backend
@pytest.mark.parametrize(("mode", "n"), MODES)
def test_lengths_are_those_of_the_runtime(mode, n):
    """One definition: what `runtime.lengths` says of each mode, row by row."""
    lens = torch.randint(0, 40, (300,), generator=torch.Generator().manual_seed(2)).to(DEVICE)
    metadata = step_metadata(mode, lens, n)
    assert torch.equal(metadata.cache_lens, cache_lens(mode, lens, n))
    assert torch.equal(metadata.row_lens, expanded_lens(mode, lens, n))
    assert torch.equal(metadata.context_lens.flatten(), metadata.row_lens)
    assert metadata.request_of_row.tolist() == [request for request in range(300) for _ in range(n)]
    assert {tensor.dtype for tensor in (metadata.cache_lens, metadata.row_lens, metadata.request_of_row)} == {
        torch.int32
    }


@every_backend
def test_rows_of_a_request_share_its_pages():
    """n rows of the first request's pages, then n of the second's; the table may be a part of a wider one."""
    wide = ints(*range(24)).view(3, 8)
    metadata = step_metadata("target_verify", ints(5, 6, 7), 2, page_table=wide[:, 1:4])
    assert metadata.page_table.tolist() == [[1, 2, 3], [1, 2, 3], [9, 10, 11], [9, 10, 11], [17, 18, 19], [17, 18, 19]]


@every_backend
def test_given_tensors_are_written_and_returned():
    """The very tensors, with nothing beside them written; a second call overwrites the first."""
    pool = torch.full((4, 9), -7, dtype=torch.int32, device=DEVICE)
    out = StepMetadata(pool[0, :2], pool[1, :4].view(2, 2), pool[2, :4], torch.full_like(pool, -7)[:, 2:5])
    for lens in (ints(8, 9), ints(3, 0)):
        metadata = step_metadata("draft_extend", lens, 2, page_table=ints(*range(6)).view(2, 3), out=out)
    assert metadata is out
    assert pool[0].tolist() == [3, 0] + [-7] * 7
    assert pool[1].tolist() == [2, 3, 0, 0] + [-7] * 5
    assert pool[2].tolist() == [0, 0, 1, 1] + [-7] * 5
    assert out.page_table.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]


@every_backend
def test_nothing_waits(monkeypatch):
    """Beside the checks, which are done on the CPU alone, no value is asked of the device."""
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    with Watch() as watch:
        step_metadata("target_verify", ints(*range(64)), 4, page_table=ints(*range(64)).view(64, 1))
    assert {"aten.nonzero", "aten.item", "aten._local_scalar_dense", "aten.is_nonzero"}.isdisjoint(watch.calls)


@every_backend
@pytest.mark.parametrize(("mode", "n"), MODES)
def test_unchecked_lengths_are_cut(monkeypatch, mode, n):
    """Where nobody looks, a negative length counts as 0 and one beyond int32 as the longest that fits."""
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    most = 2**31 - 1 - (n if mode == "target_verify" else 0)
    hostile = ints(-1, -(2**62), 2**31, 2**62, -(2**31), 2**31 - 1, dtype=torch.int64)
    metadata = step_metadata(mode, hostile, n)
    wanted = step_metadata(mode, ints(0, 0, most, most, 0, most, dtype=torch.int64), n)
    assert torch.equal(metadata.cache_lens, wanted.cache_lens)
    assert torch.equal(metadata.context_lens, wanted.context_lens)
    assert int(metadata.context_lens.min()) >= 0


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (RangeError, "mode is 'verify'; wanted 'decode' or 'target_verify' or 'draft_extend'", {"mode": "verify"}),
        (RangeError, "n is 2; wanted an integer from 1 to 1", {"mode": "decode"}),
        (RangeError, "n is 0; wanted an integer from 1", {"n": 0}),
        (RangeError, "n is 2.0", {"n": 2.0}),
        (DtypeError, "seq_lens is float32", {"seq_lens": torch.zeros(2)}),
        (ShapeError, "seq_lens has shape", {"seq_lens": torch.zeros(2, 1, dtype=torch.int32)}),
        (RangeError, r"seq_lens holds -1 at \[1\]; wanted 0 to 2147483645", {"seq_lens": torch.tensor([0, -1])}),
        (RangeError, r"seq_lens holds 2147483646 at \[0\]", {"seq_lens": torch.tensor([2**31 - 2, 0])}),
        (ShapeError, "page_table has shape", {"page_table": torch.zeros(3, 2, dtype=torch.int32)}),
        (DtypeError, "page_table is int64", {"page_table": torch.zeros(2, 2, dtype=torch.int64)}),
        (DeviceError, "page_table is on meta", {"page_table": torch.zeros(2, 2, dtype=torch.int32, device="meta")}),
        (DtypeError, "out is tuple; wanted StepMetadata", {"out": ()}),
        (ShapeError, "out.cache_lens has shape", {"out": StepMetadata.allocate(3, 2, "cpu", 2)}),
        (ShapeError, "out.context_lens has shape", {"out": StepMetadata.allocate(2, 3, "cpu", 2)}),
        (ShapeError, "out.page_table is None; wanted a page table", {"out": StepMetadata.allocate(2, 2, "cpu")}),
        (ShapeError, "out.page_table has shape", {"out": StepMetadata.allocate(2, 2, "cpu", 3)}),
        (
            ShapeError,
            "out.page_table is given; wanted",
            {"out": StepMetadata.allocate(2, 2, "cpu", 2), "page_table": None},
        ),
        (RangeError, "index_topk is 0; wanted an integer from 1", {"index_topk": 0}),
        (RangeError, "index_topk is 2048.0", {"index_topk": 2048.0}),
        (
            ShapeError,
            "out.dsa_cache_lens is None; wanted lengths in `out` exactly if `index_topk` is given",
            {"out": StepMetadata.allocate(2, 2, "cpu", 2), "index_topk": 8},
        ),
        (
            ShapeError,
            "out.dsa_cache_lens is given; wanted",
            {"out": StepMetadata.allocate(2, 2, "cpu", 2, selects=True)},
        ),
        (
            ShapeError,
            "out.cu_cache_lens has shape",
            {
                "out": dataclasses.replace(
                    StepMetadata.allocate(2, 2, "cpu", 2, selects=True), cu_cache_lens=torch.zeros(2, dtype=torch.int32)
                ),
                "index_topk": 8,
            },
        ),
        (
            StrideError,
            r"out.page_table has strides \[0, 1\].*overlap",
            {
                "out": StepMetadata(
                    *(torch.zeros(shape, dtype=torch.int32) for shape in ((2,), (2, 2), (4,))),
                    torch.zeros(1, 2, dtype=torch.int32).expand(4, 2),
                )
            },
        ),
    ],
)
def test_what_it_is_not_made_for_is_an_error(error, words, changes):
    """The error names the argument, what came and what is wanted."""
    good = {
        "mode": "target_verify",
        "seq_lens": torch.tensor([3, 4], dtype=torch.int32),
        "n": 2,
        "page_table": torch.zeros(2, 2, dtype=torch.int32),
    }
    with pytest.raises(error, match=f"^step_metadata: {words}"):
        dsa_exec.step_metadata(**{**good, **changes})
    assert issubclass(error, ArgumentError)


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("launch", ["rows=1", "pages=1", "pages=2", "summed=1", "summed=4", "warps=1"])
def test_launch_parameters_change_nothing(launch):
    """Whatever `kernel_launch` says, the numbers are the same."""
    args = ("target_verify", ints(5, 6, 7), 2)
    table = ints(*range(15)).view(3, 5)
    with settings.override(step_metadata_backend="triton", kernel_launch=f"step_metadata.triton.{launch}"):
        got = step_metadata(*args, page_table=table, index_topk=7)
    with settings.override(step_metadata_backend="torch"):
        wanted = step_metadata(*args, page_table=table, index_topk=7)
    assert torch.equal(got.row_lens, wanted.row_lens)
    assert torch.equal(got.cu_cache_lens, wanted.cu_cache_lens)
    assert torch.equal(got.cu_dsa_cache_lens, wanted.cu_dsa_cache_lens)
    assert torch.equal(got.page_table, wanted.page_table)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_backend
@pytest.mark.parametrize(("mode", "n"), MODES)
def test_a_captured_step_follows_its_lengths(mode, n):
    """Captured once into given tensors, a replay gives the metadata of the lengths and pages of the moment."""
    lens, table = ints(5, 70, 1), ints(*range(12)).view(3, 4)
    out = StepMetadata.allocate(3, n, DEVICE, pages=4, selects=True)
    step_metadata(mode, lens, n, page_table=table, index_topk=64, out=out)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step_metadata(mode, lens, n, page_table=table, index_topk=64, out=out)
    for step in range(1, 4):
        lens.copy_(ints(step, 100 * step, 0))
        table.add_(1)
        graph.replay()
        wanted = step_metadata(mode, lens, n, page_table=table, index_topk=64)
        assert torch.equal(out.cache_lens, wanted.cache_lens)
        assert torch.equal(out.cu_dsa_cache_lens, wanted.cu_dsa_cache_lens)
        assert torch.equal(out.context_lens, wanted.context_lens)
        assert torch.equal(out.page_table, wanted.page_table)
