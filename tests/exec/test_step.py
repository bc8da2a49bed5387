"""A step: what its rows need beside their values, made once for all layers and refreshed in place."""

from __future__ import annotations

import contextlib
import dataclasses

import fakes.deep_gemm
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from live_tensors import Watch
from step_samples import ints, machine, machine_without_deep_gemm, table

from dsa_config import settings
from dsa_exec import IndexKCache, index_select
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import ArgumentError, DtypeError, RangeError, ShapeError, UnsupportedCall
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.runtime.step import Step, next_n_of, prepare_step

MODES = [("decode", 1), ("target_verify", 1), ("target_verify", 3), ("draft_extend", 1), ("draft_extend", 4)]
every_mode = pytest.mark.parametrize(("mode", "n"), MODES)


def expected(mode: str, lens: list[int], pages: list[list[int]], n: int, index_topk: int) -> dict[str, list]:
    """The table of modes, as loops over requests and rows that know nothing of the package."""
    cached, seen, request_of_row, page_rows = [], [], [], []
    for request, length in enumerate(lens):
        in_cache = length + n if mode == "target_verify" else length
        cached.append(in_cache)
        for row in range(n):
            if mode == "decode":
                seen.append(length)
            elif mode == "target_verify":
                seen.append(length + 1 + row)
            else:
                seen.append(max(0, length - n + 1 + row))
            request_of_row.append(request)
            page_rows.append(pages[request])
    selected = [min(length, index_topk) for length in seen]
    return {
        "metadata.cache_lens": cached,
        "metadata.context_lens": [seen[first : first + n] for first in range(0, len(seen), n)],
        "metadata.request_of_row": request_of_row,
        "metadata.page_table": page_rows,
        "metadata.dsa_cache_lens": selected,
        "metadata.cu_cache_lens": [sum(cached[:end]) for end in range(len(cached) + 1)],
        "metadata.cu_dsa_cache_lens": [sum(selected[:end]) for end in range(len(selected) + 1)],
        "page_table": pages,
        "cu_rows": list(range(len(seen) + 1)),
    }


def expect_step(step: Step, wanted: dict[str, list]) -> None:
    tensors = step.tensors()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.int32}
    assert {name: tensors[name].tolist() for name in wanted} == wanted


@pytest.fixture
def _deep_gemm():
    with settings.override(paged_mqa_logits_backend="deep_gemm"):
        yield


named_deep_gemm = pytest.mark.usefixtures("_deep_gemm")


def test_the_published_verify_step():
    """Verify, 10 tokens and 3 drafts: 13 in the cache, rows see 11, 12, 13, and select 12 of them at most."""
    step = prepare_step("target_verify", ints(10), table(1, 2), 3, index_topk=12)
    assert step.metadata.cache_lens.tolist() == [13]
    assert step.metadata.row_lens.tolist() == [11, 12, 13]
    assert step.metadata.dsa_cache_lens.tolist() == [11, 12, 12]
    assert step.metadata.cu_dsa_cache_lens.tolist() == [0, 11, 23, 35]
    assert step.metadata.page_table.tolist() == [[0, 1]] * 3
    assert step.page_table.tolist() == [[0, 1]]
    assert (step.rows, step.pages, step.schedule) == (3, 2, None)


def test_the_published_draft_extend_step():
    """Draft-extend, 1 token and 6 drafts: rows see 0, 0, 0, 0, 0, 1; 1 token is in the cache."""
    step = prepare_step("draft_extend", ints(1), table(1, 2), 6, index_topk=2048)
    assert step.metadata.cache_lens.tolist() == [1]
    assert step.metadata.row_lens.tolist() == [0, 0, 0, 0, 0, 1]
    assert step.metadata.cu_dsa_cache_lens.tolist() == [0, 0, 0, 0, 0, 0, 1]


@given(st.data())
def test_every_tensor_is_what_the_table_of_modes_says(data):
    """Any mode, lengths, rows, pages and selection, fresh and refreshed, against loops."""
    mode, n = data.draw(st.sampled_from(["decode", "target_verify", "draft_extend"])), 1
    if mode != "decode":
        n = data.draw(st.integers(1, 5))
    b, pages = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 4))
    index_topk, dtype = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([torch.int32, torch.int64]))
    lens = [data.draw(st.lists(st.integers(0, 60), min_size=b, max_size=b)) for _ in range(2)]
    tables = [table(b, pages), table(b, pages) - 7]
    step = prepare_step(mode, ints(*lens[0], dtype=dtype), tables[0], n, index_topk=index_topk)
    expect_step(step, expected(mode, lens[0], tables[0].tolist(), n, index_topk))
    step.refresh(ints(*lens[1], dtype=dtype), tables[1])
    expect_step(step, expected(mode, lens[1], tables[1].tolist(), n, index_topk))


@every_mode
def test_a_refreshed_step_keeps_its_tensors(mode, n):
    """`out` is returned, no tensor moves, and the caller's tensors are not among them."""
    lens, pages = ints(5, 70, 0), table(3, 4)
    step = prepare_step(mode, lens, pages, n, index_topk=64)
    places = {name: tensor.data_ptr() for name, tensor in step.tensors().items()}
    assert not {lens.data_ptr(), pages.data_ptr()} & set(places.values())
    assert prepare_step(mode, ints(8, 1, 2), pages + 3, n, index_topk=64, out=step) is step
    assert {name: tensor.data_ptr() for name, tensor in step.tensors().items()} == places
    lens.fill_(99)
    pages.fill_(99)
    expect_step(step, expected(mode, [8, 1, 2], (table(3, 4) + 3).tolist(), n, 64))


def test_a_page_table_may_be_part_of_a_wider_one():
    """Its rows lie apart; the step's own do not."""
    wide = table(2, 9)
    step = prepare_step("decode", ints(5, 6), wide[:, 2:5], index_topk=8)
    assert step.page_table.tolist() == [[2, 3, 4], [11, 12, 13]]
    assert step.page_table.is_contiguous()
    step.refresh(ints(7, 8), wide[:, 5:8])
    assert step.page_table.tolist() == [[5, 6, 7], [14, 15, 16]]


@every_mode
def test_T15_a_step_means_the_same_at_capture_and_at_replay(mode, n):
    """T15: what a replay refreshes is what a capture made, in every mode; the ancestor captured draft_extend with n
    tokens more than it replayed.
    """
    lens, pages = ints(10, 4, 200), table(3, 5)
    captured = prepare_step(mode, lens, pages, n, index_topk=64)
    at_capture = {name: tensor.clone() for name, tensor in captured.tensors().items()}
    captured.refresh(ints(1, 2, 3), pages + 1)
    captured.refresh(lens, pages)
    for name, tensor in captured.tensors().items():
        assert torch.equal(tensor, at_capture[name]), name
    assert captured.metadata.cache_lens.tolist() == [
        length + (n if mode == "target_verify" else 0) for length in (10, 4, 200)
    ]


def test_T15_rows_that_cannot_be_shared_out_are_an_error():
    """T15: 13 rows of 4 requests have no next_n; the ancestor divided and went on with 3."""
    assert (next_n_of(12, 4), next_n_of(0, 4), next_n_of(0, 0)) == (3, 0, 0)
    with pytest.raises(ShapeError, match="q has 13 rows; wanted a multiple of 4"):
        next_n_of(13, 4)
    with pytest.raises(ShapeError, match="q has 3 rows; wanted a multiple of 0"):
        next_n_of(3, 0)
    step = prepare_step("target_verify", ints(5, 6, 7, 8), table(4, 1), 3, index_topk=8)
    assert step.by_request(torch.zeros(12, 2, 128)).shape == (4, 3, 2, 128)
    for rows in (13, 11, 4):
        with pytest.raises(ShapeError, match=rf"q has shape \[{rows}, 2\]; wanted 12 rows, 3 for each of 4 requests"):
            step.by_request(torch.zeros(rows, 2))
    with pytest.raises(ShapeError, match=r"weights has shape \[\]"):
        step.by_request(torch.zeros(()), "weights")


def test_a_step_without_requests():
    """An idle step has no rows, sums of one element, no schedule, and can be refreshed."""
    with settings.override(paged_mqa_logits_backend="deep_gemm"), assumed(machine("sm90")):
        step = prepare_step("target_verify", ints(), table(0, 3), 2, index_topk=8)
        step.refresh(ints(), table(0, 3))
    assert step.schedule is None
    assert step.metadata.cu_cache_lens.tolist() == step.cu_rows.tolist() == [0]
    assert step.by_request(torch.zeros(0, 5)).shape == (0, 2, 5)


def test_nothing_waits(monkeypatch):
    """Beside the checks, which are done on the CPU alone, no value is asked of the device."""
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    with Watch() as watch:
        step = prepare_step("draft_extend", ints(*range(64)), table(64, 2), 4, index_topk=16)
        step.refresh(ints(*range(64)), table(64, 2))
    assert {"aten.nonzero", "aten.item", "aten._local_scalar_dense", "aten.is_nonzero"}.isdisjoint(watch.calls)


@named_deep_gemm
@pytest.mark.parametrize(
    ("mode", "n", "arch", "form", "lens"),
    [
        ("target_verify", 3, "sm100", "native", [[13, 13, 13]]),
        ("target_verify", 3, "sm90", "expanded", [[11], [12], [13]]),
        ("target_verify", 2, "sm90", "native", [[12, 12]]),
        ("target_verify", 1, "sm100", "expanded", [[11]]),
        ("draft_extend", 3, "sm100", "expanded", [[8], [9], [10]]),
        ("decode", 1, "sm100", "expanded", [[10]]),
    ],
)
def test_the_published_lengths_of_the_schedule(mode, n, arch, form, lens):
    """10 tokens, 3 drafts: full lengths in one row where the library takes it, else a row each. Tables follow."""
    hw, library = fakes.deep_gemm.machine(arch)
    with assumed(hw):
        step = prepare_step(mode, ints(10), table(1, 4), n, index_topk=64)
    schedule = step.schedule
    assert (schedule.form, schedule.context_lens.tolist()) == (form, lens)
    assert schedule.page_table.tolist() == [[0, 1, 2, 3]] * len(lens)
    made_of = library.named("get_paged_mqa_logits_metadata")[-1].args
    assert torch.equal(schedule.work, library.get_paged_mqa_logits_metadata(*made_of))
    assert torch.equal(made_of[0], schedule.context_lens)


@named_deep_gemm
@every_mode
@pytest.mark.parametrize("arch", ["sm90", "sm100"])
@pytest.mark.parametrize("cache_pages", [None, 2])
def test_a_schedule_is_refreshed_in_place(mode, n, arch, cache_pages):
    """Every tensor of a refreshed step, its schedule's among them, is that of a new step, where it was before."""
    with assumed(machine(arch)):
        step, other = (
            prepare_step(mode, lens, pages, n, index_topk=64, cache_pages=cache_pages)
            for lens, pages in ((ints(10, 90), table(2, 3)), (ints(33, 0), table(2, 3) + 5))
        )
        places = {name: tensor.data_ptr() for name, tensor in step.tensors().items()}
        step.refresh(ints(33, 0), table(2, 3) + 5)
    assert "schedule.work" in places
    for name, tensor in step.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name
        assert tensor.data_ptr() == places[name], name
    assert step.metadata.page_table.tolist() == [row for row in (table(2, 3) + 5).tolist() for _ in range(n)]


@named_deep_gemm
@pytest.mark.parametrize("arch", ["sm90", None])
def test_a_step_made_under_inference_mode_is_refreshed_outside(arch):
    """As where an engine makes its steps while it warms up, and replays elsewhere; and the other way round."""
    with contextlib.ExitStack() as stack:
        if arch is not None:
            stack.enter_context(assumed(machine(arch)))
        with torch.inference_mode():
            step = prepare_step("target_verify", ints(5, 9), table(2, 3), 2, index_topk=8, scheduled=arch is not None)
        step.refresh(ints(6, 10), table(2, 3))
        assert step.metadata.cache_lens.tolist() == [8, 12]
        with torch.inference_mode():
            step.refresh(ints(7, 11), table(2, 3))
        assert step.metadata.cache_lens.tolist() == [9, 13]
        assert not any(tensor.is_inference() for tensor in step.tensors().values())


def test_expanded_pages_are_kept_once():
    """Where the schedule has the pages of every row, the metadata's are the same memory; cut ones are its own."""
    with assumed(machine("sm90")):
        shared = prepare_step("draft_extend", ints(5, 9), table(2, 3), 4, index_topk=8)
        cut = prepare_step("draft_extend", ints(5, 9), table(2, 3), 4, index_topk=8, cache_pages=4)
    assert shared.metadata.page_table is shared.schedule.page_table
    assert cut.metadata.page_table.tolist() == [[0, 1, 2]] * 4 + [[3, 4, 5]] * 4
    assert cut.schedule.page_table.tolist() == [[0, 1, 2]] * 4 + [[3, 3, 3]] * 4


@pytest.mark.parametrize(
    ("choice", "hw", "scheduled", "made"),
    [
        ("deep_gemm", machine("sm90"), None, True),
        ("deep_gemm", machine("sm90"), False, False),
        ("triton", machine("sm100"), None, False),
        ("triton", machine("sm100"), True, True),
        ("auto", machine("sm100"), None, True),
        ("auto", machine_without_deep_gemm("sm100"), None, False),
        ("auto", machine("gfx942"), None, False),
        ("auto", Capabilities("cpu", "cpu", "2.11.0", None), None, False),
    ],
)
def test_a_schedule_is_made_where_a_backend_uses_one(choice, hw, scheduled, made):
    """Named, or auto where deep_gemm can run and our own kernel cannot; the caller may say otherwise."""
    with settings.override(paged_mqa_logits_backend=choice), assumed(hw):
        step = prepare_step("decode", ints(5), table(1, 1), index_topk=8, scheduled=scheduled)
    assert (step.schedule is not None) is made


def test_auto_makes_no_schedule_where_our_own_kernel_runs(monkeypatch):
    """On Hopper auto scores with our own kernel; a schedule that nobody reads would cost every step."""
    monkeypatch.setattr("dsa_exec.core.triton_support.is_interpreted", lambda: False)
    with assumed(machine("sm90")):
        assert prepare_step("decode", ints(5), table(1, 1), index_topk=8).schedule is None


@named_deep_gemm
@pytest.mark.parametrize(
    ("hw", "words"),
    [
        (machine_without_deep_gemm("sm90"), "deep_gemm is not here"),
        (machine("gfx942"), "arch=gfx942: deep_gemm has kernels"),
    ],
)
def test_a_named_backend_that_cannot_make_a_schedule_is_an_error(hw, words):
    """In the words of its refusal, and without falling back."""
    with assumed(hw), pytest.raises(UnsupportedCall, match=f"^paged_mqa_logits: deep_gemm: {words}"):
        prepare_step("decode", ints(5), table(1, 1), index_topk=8)


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (RangeError, "step_metadata: mode is 'verify'", {"mode": "verify"}),
        (RangeError, "step_metadata: n is 2; wanted an integer from 1 to 1", {"mode": "decode"}),
        (RangeError, "step_metadata: n is 0", {"n": 0}),
        (RangeError, "prepare_step: index_topk is 0; wanted an integer from 1 to 4096", {"index_topk": 0}),
        (RangeError, "prepare_step: index_topk is 4097", {"index_topk": 4097}),
        (DtypeError, "prepare_step: page_table is NoneType", {"page_table": None}),
        (DtypeError, "prepare_step: page_table is int64", {"page_table": table(2, 3).long()}),
        (ShapeError, "step_metadata: page_table has shape", {"page_table": table(3, 3)}),
        (RangeError, r"step_metadata: seq_lens holds -1 at \[1\]", {"seq_lens": ints(0, -1)}),
    ],
)
def test_what_it_is_not_made_for_is_an_error(error, words, changes):
    """The error names the argument, what came and what is wanted."""
    good = {"mode": "target_verify", "seq_lens": ints(3, 4), "page_table": table(2, 3), "n": 2, "index_topk": 8}
    with pytest.raises(error, match=f"^{words}"):
        prepare_step(**{**good, **changes})
    assert issubclass(error, ArgumentError)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (
            "out is a step of mode=target_verify, b=2, n=2, pages=3, index_topk=8; wanted mode=decode",
            {"mode": "decode"},
        ),
        ("out is .*n=2.*; wanted .*n=3", {"n": 3}),
        ("out is .*; wanted .*index_topk=9", {"index_topk": 9}),
        ("out is .*; wanted .*pages=4", {"page_table": table(2, 4)}),
        ("out is .*; wanted .*b=3", {"page_table": table(3, 3), "seq_lens": ints(1, 2, 3)}),
        ("out is tuple; wanted Step", {"out": ()}),
        ("scheduled is True beside `out`", {"scheduled": True}),
        ("cache_pages is 7 beside `out`", {"cache_pages": 7}),
    ],
)
def test_a_step_of_another_kind_is_not_refreshed(words, changes):
    """Both kinds are named, and nothing of the step has changed."""
    good = {"mode": "target_verify", "seq_lens": ints(3, 4), "page_table": table(2, 3), "n": 2, "index_topk": 8}
    step = prepare_step(**good)
    before = {name: tensor.clone() for name, tensor in step.tensors().items()}
    with pytest.raises(ArgumentError, match=f"^prepare_step: {words}"):
        prepare_step(**{**good, "seq_lens": ints(8, 9), "out": step, **changes})
    for name, tensor in step.tensors().items():
        assert torch.equal(tensor, before[name]), name


@every_mode
def test_layers_select_with_what_the_step_made(mode, n):
    """`paged_keys` gives every layer's cache the step's pages and lengths; each row sees what the table says."""
    generator = torch.Generator().manual_seed(3)
    layout = IndexKLayout("model", 16, 32, element_bytes=4)
    step = prepare_step(mode, ints(20, 3), ints(2, 0, 1, 3).view(2, 2), n, index_topk=4)
    q, weights = torch.randn(2, n, 3, 32, generator=generator), torch.rand(2 * n, 3, generator=generator)
    for _ in range(2):
        cache = random_index_k_cache(generator, layout, 4, torch.device("cpu"))
        assert isinstance(cache, IndexKCache)
        got = index_select(q, weights, step.paged_keys(cache), 4).indices
        for row, seen in enumerate(step.metadata.row_lens.tolist()):
            picked = got[row][got[row] >= 0]
            assert len(picked) == min(seen, 4) == step.metadata.dsa_cache_lens[row]
            own = step.page_table[row // n].tolist()
            positions = [own.index(slot // 16) * 16 + slot % 16 for slot in picked.tolist()]
            assert all(position < seen for position in positions)


def test_a_tensor_that_is_added_to_a_step_is_found():
    """`tensors` walks the fields: a new one of the step, its metadata or its schedule needs no mention."""
    step = prepare_step("decode", ints(5), table(1, 1), index_topk=8)
    named = {f"metadata.{field.name}" for field in dataclasses.fields(step.metadata)} | {"page_table", "cu_rows"}
    assert set(step.tensors()) == named
