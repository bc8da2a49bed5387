"""Schedules of deep_gemm's paged kernel: their form, what they are made of, and that they describe the call."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from fakes.deep_gemm import machine

from dsa_config import settings
from dsa_exec import PagedKeys, index_select, paged_mqa_logits
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.deep_gemm_records import NATIVE_SM90
from dsa_exec.core.errors import DeviceError, DtypeError, RangeError, ShapeError, StrideError
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.vendors import Missing
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.paged_mqa_logits.schedule import paged_form, paged_schedule, refuses_schedule

TABLE = torch.tensor([[0, 1], [2, 3]], dtype=torch.int32)
NONE = {"deep_gemm": Missing("deep_gemm", "deep_gemm is not installed")}


def lens_of(*rows: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32)


def scores(hw, lens, table=TABLE, schedule=None, heads=32, backend="deep_gemm", **named):
    """Logits of random queries."""
    generator = torch.Generator().manual_seed(0)
    cache = random_index_k_cache(generator, IndexKLayout(), 4, torch.device("cpu"))
    b, n = lens.shape
    q = torch.randn(b, n, heads, 128, generator=generator).to(E4M3)
    weights = torch.randn(b * n, heads, generator=generator)
    width = named.pop("width", table.shape[1] * 64)
    with assumed(hw), settings.override(paged_mqa_logits_backend=backend):
        return paged_mqa_logits(q, cache, weights, lens, table, width, schedule=schedule, **named)


@pytest.mark.parametrize(
    ("mode", "n", "arch", "form", "why"),
    [
        ("decode", 1, "sm100", "expanded", "a request has 1 row"),
        ("target_verify", 1, "sm100", "expanded", "a request has 1 row"),
        ("target_verify", 2, "sm100", "native", "next_n=2: deep_gemm takes any number on sm100"),
        ("target_verify", 7, "sm103", "native", "next_n=7: deep_gemm takes any number on sm103"),
        ("draft_extend", 3, "sm100", "expanded", "draft_extend: native is for target_verify alone"),
        ("target_verify", 2, "sm90", "native", "next_n=2: sgl-deep-gemm 0.1.4 is recorded to take 1 and 2 on sm90"),
        ("target_verify", 3, "sm90", "expanded", "next_n=3: sgl-deep-gemm 0.1.4 is recorded to take 1 and 2 on sm90"),
        ("target_verify", 2, "sm120", "expanded", "what deep_gemm takes on sm120 is not recorded, 1 is assumed"),
        ("target_verify", 2, "sm89", "expanded", "arch=sm89: deep_gemm has kernels for sm90, sm100 and sm120"),
    ],
)
def test_the_form_and_why(mode, n, arch, form, why):
    """Native in target_verify alone, of two rows or more, where the library takes so many; else expanded, in words."""
    got, said = paged_form(mode, 2, n, machine(arch)[0])
    assert got == form
    assert why in said
    assert paged_form(mode, 0, n, machine(arch)[0]) == ("expanded", "there is no request")


def test_a_version_that_is_not_recorded_is_assumed_to_take_one_and_two(monkeypatch):
    """On sm90, and the reason says so; a record of more is followed."""
    hw, _ = machine("sm90", version="9.9")
    form, why = paged_form("target_verify", 2, 4, hw)
    assert (form, why) == (
        "expanded",
        "next_n=4: sgl-deep-gemm 9.9 is not recorded, and assumed to take 1 and 2 on sm90",
    )
    assert paged_form("target_verify", 2, 2, hw)[0] == "native"
    monkeypatch.setitem(NATIVE_SM90, ("sgl-deep-gemm", "9.9"), frozenset({1, 2, 4}))
    assert [paged_form("target_verify", 2, n, hw)[0] for n in (2, 3, 4)] == ["native", "expanded", "native"]


def test_native_lengths_are_each_requests_full_length():
    """A request of 10 tokens and three drafts: [[13, 13, 13]], one row of its pages, one share for each processor."""
    hw, library = machine("sm100", num_sms=148)
    schedule = paged_schedule("target_verify", lens_of((11, 12, 13)), TABLE[:1], hw=hw)
    assert (schedule.form, schedule.requests, schedule.next_n, schedule.num_sms) == ("native", 1, 3, 148)
    assert schedule.context_lens.tolist() == [[13, 13, 13]]
    assert schedule.page_table.tolist() == [[0, 1]]
    assert schedule.work.shape == (149, 2)
    (call,) = library.calls
    assert call.args[0] is schedule.context_lens
    assert call.args[1:] == (64, 148)


@pytest.mark.parametrize(("mode", "rows"), [("target_verify", [11, 12, 13]), ("draft_extend", [8, 9, 10])])
def test_expanded_lengths_are_each_rows_own(mode, rows):
    """[[11], [12], [13]], and a copy of the request's pages for each."""
    schedule = paged_schedule(mode, lens_of((*rows,)), TABLE[1:], hw=machine("sm90")[0])
    assert schedule.form == "expanded"
    assert schedule.context_lens.tolist() == [[length] for length in rows]
    assert schedule.page_table.tolist() == [[2, 3]] * 3


def test_decode_has_one_length_a_request():
    """[b, 1], and the table as it is."""
    schedule = paged_schedule("decode", lens_of((70,), (9,)), TABLE, hw=machine("sm90")[0])
    assert schedule.context_lens.tolist() == [[70], [9]]
    assert torch.equal(schedule.page_table, TABLE)


def test_lengths_and_pages_are_cut_to_what_may_be_read():
    """The kernel checks neither: length 0 becomes 1, one beyond the table its end, a page beyond the cache its last."""
    table = torch.tensor([[-7, 99], [2, 2**31 - 1]], dtype=torch.int32)
    hw, _ = machine("sm100")
    schedule = paged_schedule("decode", lens_of((0,), (2**31 - 1,)), table, hw=hw, cache_pages=4)
    assert schedule.context_lens.tolist() == [[1], [128]]
    assert schedule.page_table.tolist() == [[0, 3], [2, 3]]
    assert paged_schedule("decode", lens_of((-5,), (3,)), table, hw=hw).page_table.tolist() == table.tolist()


def test_a_schedule_of_nothing_asks_the_library_nothing():
    """No request, or no page: there is nothing that a kernel would be called for."""
    hw, library = machine("sm90")
    empty = paged_schedule("target_verify", torch.zeros(0, 3).int(), TABLE[:0], hw=hw)
    assert (empty.form, empty.work.shape) == ("expanded", (133, 2))
    pageless = paged_schedule("decode", lens_of((0,)), TABLE[:1, :0], hw=hw)
    assert pageless.context_lens.tolist() == [[0]]
    assert scores(hw, lens_of((0,)), TABLE[:1, :0], pageless, width=5).isneginf().all()
    assert scores(hw, torch.zeros(0, 3).int(), TABLE[:0], empty).shape == (0, 128)
    assert library.calls == []


@pytest.mark.parametrize(("arch", "n"), [("sm100", 1), ("sm100", 3), ("sm90", 2), ("sm90", 3)])
def test_every_layer_uses_the_schedule_of_the_step(arch, n):
    """It is made once; a call with it asks for none, and its logits are those of a call without."""
    hw, library = machine(arch)
    lens = lens_of(*[tuple(range(length - n + 1, length + 1)) for length in (70, 128)])
    schedule = paged_schedule("target_verify", lens, TABLE, hw=hw, cache_pages=4)
    alone = scores(hw, lens)
    library.calls.clear()
    for _layer in range(3):
        torch.testing.assert_close(scores(hw, lens, schedule=schedule), alone, rtol=1e-6, atol=1e-6)
    assert [call.name for call in library.calls] == ["fp8_paged_mqa_logits"] * 3
    for call in library.calls:
        q, _, _, given, table, work, *_ = call.args
        assert given is schedule.context_lens
        assert table is schedule.page_table
        assert work is schedule.work
        assert q.shape[:2] == given.shape


def test_a_call_without_a_schedule_makes_one_of_expanded_rows():
    """It takes rows of any lengths, and so needs not be told the mode."""
    hw, library = machine("sm100")
    scores(hw, lens_of((70, 3), (1, 128)))
    (made,) = library.named("get_paged_mqa_logits_metadata")
    assert made.args[0].tolist() == [[70], [3], [1], [128]]
    (call,) = library.named("fp8_paged_mqa_logits")
    assert call.args[0].shape == (4, 1, 32, 128)


def test_T13_a_schedule_of_another_layout_is_an_error_and_no_fall_back():
    """T13: native shares with expanded lengths can hang the kernel; what disagrees is told, and nothing is called."""
    hw, library = machine("sm100")
    lens = lens_of((69, 70), (127, 128))
    schedule = paged_schedule("target_verify", lens, TABLE, hw=hw)
    expanded = paged_schedule("draft_extend", lens, TABLE, hw=hw)
    library.calls.clear()
    for change in (
        {"context_lens": expanded.context_lens},
        {"page_table": expanded.page_table},
        {"form": "expanded"},
        {"next_n": 4, "requests": 1},
        {"work": schedule.work[:-1].contiguous()},
        {"work": schedule.work.flatten()},
    ):
        with pytest.raises(ShapeError, match="paged_mqa_logits: schedule"):
            scores(hw, lens, schedule=dataclasses.replace(schedule, **change))
    other = paged_schedule("target_verify", lens.view(1, 4), TABLE[:1], hw=hw)
    library.calls.clear()
    wanted = (
        "paged_mqa_logits: schedule is native, of 1 requests with 4 rows each over 2 pages; "
        "wanted one of 2 requests with 2 rows each over 2 pages, as in the call"
    )
    with pytest.raises(ShapeError) as error:
        scores(hw, lens, schedule=other)
    assert str(error.value) == wanted
    assert library.calls == []


def test_T13_a_native_schedule_where_the_library_takes_no_such_rows_is_an_error():
    """T13: made on another device or for another build: the form is not changed behind the caller's back."""
    lens = lens_of((68, 69, 70), (126, 127, 128))
    schedule = paged_schedule("target_verify", lens, TABLE, hw=machine("sm100")[0])
    hw, library = machine("sm90")
    with pytest.raises(
        ShapeError, match=r"schedule is native, .*; wanted expanded rows \(next_n=3: sgl-deep-gemm 0.1.4"
    ):
        scores(hw, lens, schedule=schedule)
    assert library.calls == []


def test_T13_a_schedule_of_shorter_lengths_is_an_error_where_numbers_are_looked_at():
    """T13: a stale schedule leaves the new positions undefined; one of longer lengths does no harm."""
    for n, arch in ((1, "sm90"), (2, "sm100"), (3, "sm90")):
        hw, _ = machine(arch)
        before, after = torch.full((2, n), 60).int(), torch.full((2, n), 61).int()
        stale = paged_schedule("target_verify", before, TABLE, hw=hw)
        with pytest.raises(RangeError, match=r"schedule was made for 60 positions at \[0, 0\]; wanted 61 at least"):
            scores(hw, after, schedule=stale)
        current = paged_schedule("target_verify", after, TABLE, hw=hw, out=stale)
        torch.testing.assert_close(scores(hw, before, schedule=current), scores(hw, before), rtol=1e-6, atol=1e-6)


def test_T15_rows_that_no_number_of_requests_divides_are_an_error():
    """T15: next_n is a dimension of the queries, never a division; rows that do not fit it are told."""
    hw, library = machine("sm100")
    cache = random_index_k_cache(torch.Generator().manual_seed(0), IndexKLayout(), 4, torch.device("cpu"))
    q, lens = torch.zeros(2, 3, 32, 128).to(E4M3), torch.full((2, 3), 9).int()
    with assumed(hw), settings.override(paged_mqa_logits_backend="deep_gemm"):
        for rows in (5, 7):
            with pytest.raises(ShapeError, match=r"head_weights has shape \[\d, 32\].*b\*n=6"):
                paged_mqa_logits(q, cache, torch.zeros(rows, 32), lens, TABLE, 64)
        with pytest.raises(ShapeError, match="schedule is native, of 3 requests with 2 rows each"):
            three = paged_schedule("target_verify", torch.full((3, 2), 9).int(), TABLE[[0, 1, 1]], hw=hw)
            paged_mqa_logits(q, cache, torch.zeros(6, 32), lens, TABLE, 64, schedule=three)
    assert library.named("fp8_paged_mqa_logits") == []


def test_T16_a_schedule_for_other_multiprocessors_is_an_error(monkeypatch):
    """T16: the library is told to leave one free between the schedule and the call; told again, it is right."""
    hw, library = machine("sm90")
    lens = lens_of((70,), (9,))
    schedule = paged_schedule("decode", lens, TABLE, hw=hw)
    monkeypatch.setattr(library, "num_sms", 131)
    with pytest.raises(ShapeError, match="was made for 132 multiprocessors, in 132 shares; wanted 131 multiprocessors"):
        scores(hw, lens, schedule=schedule)
    with pytest.raises(ShapeError, match=r"paged_schedule: out is .* for 132 .*; wanted one that is .* for 131 "):
        paged_schedule("decode", lens, TABLE, hw=hw, out=schedule)
    again = paged_schedule("decode", lens, TABLE, hw=hw)
    assert again.work.shape == (132, 2)
    assert scores(hw, lens, schedule=again).isfinite().any()


def test_T16_four_native_rows_on_sm90_have_half_the_shares(monkeypatch):
    """T16: pairs of multiprocessors share the keys there, so that the schedule has num_sms // 2 + 1 rows."""
    monkeypatch.setitem(NATIVE_SM90, ("sgl-deep-gemm", "9.9"), frozenset({1, 2, 4}))
    hw, _ = machine("sm90", version="9.9", native=(1, 2, 4), num_sms=131)
    lens = lens_of((67, 68, 69, 70), (1, 2, 3, 4))
    schedule = paged_schedule("target_verify", lens, TABLE, hw=hw)
    assert (schedule.form, schedule.num_sms, schedule.work.shape) == ("native", 131, (66, 2))
    torch.testing.assert_close(scores(hw, lens, schedule=schedule), scores(hw, lens), rtol=1e-6, atol=1e-6)
    expanded = paged_schedule("draft_extend", lens, TABLE, hw=hw)
    assert expanded.work.shape == (132, 2)
    shares = dataclasses.replace(schedule, work=torch.zeros(132, 2).int())
    with pytest.raises(ShapeError, match="in 131 shares; wanted 131 multiprocessors, in 65 shares"):
        scores(hw, lens, schedule=shares)


def test_T16_a_library_that_does_not_say_uses_all_multiprocessors():
    """T16: builds without get_num_sms use what the device has."""
    hw, library = machine("sm90", num_sms=78)
    module = hw.library("deep_gemm").module
    del module.get_num_sms
    assert paged_schedule("decode", lens_of((70,), (9,)), TABLE, hw=hw).work.shape == (79, 2)
    assert library.calls[0].args[2] == 78


def test_a_schedule_is_refreshed_in_place():
    """The tensors stay where they are, with new lengths, pages and shares, so that a captured graph follows them."""
    hw, _ = machine("sm100")
    schedule = paged_schedule("target_verify", lens_of((3, 4), (5, 6)), TABLE, hw=hw, cache_pages=4)
    addresses = [part.data_ptr() for part in (schedule.context_lens, schedule.page_table, schedule.work)]
    lens, table = lens_of((127, 128), (69, 70)), TABLE.flip(0).contiguous()
    again = paged_schedule("target_verify", lens, table, hw=hw, out=schedule, cache_pages=4)
    assert again is schedule
    assert [part.data_ptr() for part in (again.context_lens, again.page_table, again.work)] == addresses
    assert again.context_lens.tolist() == [[128, 128], [70, 70]]
    torch.testing.assert_close(scores(hw, lens, table, schedule), scores(hw, lens, table), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cache_pages", [0, 4])
@pytest.mark.parametrize(("mode", "n"), [("decode", 1), ("target_verify", 2), ("draft_extend", 2)])
def test_a_refresh_does_not_write_to_what_a_schedule_was_made_of(mode, n, cache_pages):
    """Lengths and pages are the schedule's own, also where they are the caller's unchanged."""
    hw, _ = machine("sm100")
    lens, table = torch.full((2, n), 9).int(), TABLE.clone()
    schedule = paged_schedule(mode, lens, table, hw=hw, cache_pages=cache_pages)
    other = TABLE.flip(0).contiguous()
    paged_schedule(mode, lens + 1, other, hw=hw, cache_pages=cache_pages, out=schedule)
    assert torch.equal(table, TABLE)
    assert torch.equal(other, TABLE.flip(0))
    assert (lens == 9).all()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"mode": "draft_extend"}, ShapeError),
        ({"context_lens": lens_of((3, 4, 5), (5, 6, 7))}, ShapeError),
        ({"page_table": TABLE[:, :1]}, ShapeError),
        ({"cache_pages": 4}, ShapeError),
        ({"out": "nothing"}, DtypeError),
        ({"mode": "prefill"}, RangeError),
        ({"mode": "decode"}, RangeError),
        ({"cache_pages": -1}, RangeError),
        ({"context_lens": torch.zeros(2, 2)}, DtypeError),
        ({"page_table": TABLE.t()}, StrideError),
        ({"page_table": TABLE[:1]}, ShapeError),
        ({"hw": Capabilities("cuda", "sm90", "2.11", "3.6", vendors=NONE)}, DeviceError),
        ({"hw": machine("sm100", 2)[0]}, DeviceError),
    ],
)
def test_what_a_schedule_cannot_be_made_of_is_an_error(change, error):
    """A mode, shape, device or `out` that is of something else; the schedule that was given is left as it was."""
    hw, _ = machine("sm100")
    args = {"mode": "target_verify", "context_lens": lens_of((3, 4), (5, 6)), "page_table": TABLE, "hw": hw}
    out = paged_schedule(**args)
    before = [part.clone() for part in (out.context_lens, out.page_table, out.work)]
    args = {**args, "out": out, **change}
    with pytest.raises(error, match="paged_schedule"):
        paged_schedule(**args)
    assert all(torch.equal(*pair) for pair in zip(before, (out.context_lens, out.page_table, out.work), strict=True))


def test_why_there_is_no_schedule():
    """In words, for whoever prepares a step."""
    assert refuses_schedule(machine("sm90")[0]) is None
    assert "UE8M0" in refuses_schedule(machine("sm100", 2)[0])
    assert refuses_schedule(Capabilities("cuda", "sm90", "2.11", "3.6", vendors=NONE)) == "deep_gemm is not installed"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"form": "compressed"}, RangeError),
        ({"work": torch.zeros(133, 2)}, DtypeError),
        ({"page_table": torch.zeros(2, 4).int()[:, ::2]}, StrideError),
        ({"page_table": torch.zeros(2, 5).int()[:, :2]}, StrideError),
    ],
)
def test_a_schedule_made_by_hand_is_checked(change, error):
    """Also where another backend runs, which needs none."""
    hw, _ = machine("sm100")
    lens = lens_of((3, 4), (5, 6))
    schedule = paged_schedule("target_verify", lens, TABLE, hw=hw)
    assert torch.equal(scores(hw, lens, schedule=schedule, backend="torch"), scores(hw, lens, backend="torch"))
    for backend in ("torch", "deep_gemm"):
        with pytest.raises(error, match="paged_mqa_logits: schedule"):
            scores(hw, lens, schedule=dataclasses.replace(schedule, **change), backend=backend)


def test_a_schedule_wider_than_the_result():
    """Its lengths may pass the columns that are wanted: the library gets room for them, and they are cut after it."""
    hw, library = machine("sm100")
    lens = lens_of((9, 10), (19, 20))
    schedule = paged_schedule("target_verify", torch.full((2, 2), 128).int(), TABLE, hw=hw)
    narrow = scores(hw, lens, schedule=schedule, width=20)
    torch.testing.assert_close(narrow, scores(hw, lens, width=20), rtol=1e-6, atol=1e-6)
    assert library.named("fp8_paged_mqa_logits")[0].args[6] == 128


class TestIndexSelect:
    """The composite hands the schedule of its keys on."""

    def keys(self, hw, n=2):
        generator = torch.Generator().manual_seed(0)
        cache = random_index_k_cache(generator, IndexKLayout(), 4, torch.device("cpu"))
        lens = lens_of(*[tuple(range(length - n + 1, length + 1)) for length in (70, 128)])
        schedule = paged_schedule("target_verify", lens, TABLE, hw=hw, cache_pages=4)
        q = torch.randn(2, n, 32, 128, generator=generator).to(E4M3)
        return q, torch.randn(2 * n, 32, generator=generator), PagedKeys(cache, TABLE, lens, schedule), 16

    def selects(self, hw, args, **chosen):
        names = {"paged_mqa_logits_backend": "deep_gemm", "topk_backend": "torch", **chosen}
        with assumed(hw), settings.override(**names):
            return index_select(*args)

    def test_a_selection_in_one_go_uses_it(self):
        """Native rows, the same selection."""
        hw, library = machine("sm100")
        args = self.keys(hw)
        library.calls.clear()
        with_it = self.selects(hw, args).indices
        assert [call.name for call in library.calls] == ["fp8_paged_mqa_logits"]
        assert library.calls[0].args[0].shape == (2, 2, 32, 128)
        q, weights, keys, k = args
        without = self.selects(hw, (q, weights, dataclasses.replace(keys, schedule=None), k)).indices
        assert torch.equal(with_it, without)

    def test_a_selection_in_chunks_makes_schedules_of_its_own(self):
        """Each chunk is another call; the selection is the same."""
        hw, library = machine("sm100")
        args = self.keys(hw)
        whole = self.selects(hw, args).indices
        library.calls.clear()
        selection = self.selects(hw, args, mqa_logits_max_chunk_bytes=1024)
        assert selection.chunks == 2
        assert torch.equal(selection.indices, whole)
        assert len(library.named("get_paged_mqa_logits_metadata")) == 2

    def test_a_schedule_of_other_keys_is_an_error_also_in_chunks(self):
        """T13: it is checked before anything runs."""
        hw, library = machine("sm100")
        q, weights, keys, k = self.keys(hw)
        other = paged_schedule("target_verify", torch.full((1, 4), 70).int(), TABLE[:1], hw=hw)
        library.calls.clear()
        for chosen in ({}, {"mqa_logits_max_chunk_bytes": 1024}):
            with pytest.raises(ShapeError, match="index_select: keys.schedule is native, of 1 requests"):
                self.selects(hw, (q, weights, dataclasses.replace(keys, schedule=other), k), **chosen)
        assert library.calls == []

    def test_a_compiled_selection_uses_it(self):
        """A node of a graph takes its parts: the same schedule, the same selection."""
        hw, library = machine("sm100")
        args = self.keys(hw)
        eager = self.selects(hw, args).indices
        library.calls.clear()
        torch._dynamo.reset()
        compiled = torch.compile(lambda: index_select(*args).indices, fullgraph=True, backend="aot_eager")
        names = {"paged_mqa_logits_backend": "deep_gemm", "topk_backend": "torch"}
        with assumed(hw), settings.override(**names):
            assert torch.equal(compiled(), eager)
        assert [call.name for call in library.calls] == ["fp8_paged_mqa_logits"]


@pytest.mark.parametrize("into", [False, True])
def test_a_compiled_call_uses_the_schedule(into):
    """Into a new tensor, whose rows lie side by side as the graph was told, or into a given one."""
    hw, library = machine("sm100")
    lens = lens_of((69, 70), (127, 128))
    schedule = paged_schedule("target_verify", lens, TABLE, hw=hw)
    out = torch.full((4, 128), torch.nan) if into else None
    eager = scores(hw, lens, schedule=schedule)
    library.calls.clear()
    torch._dynamo.reset()
    cache = random_index_k_cache(torch.Generator().manual_seed(0), IndexKLayout(), 4, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    random_index_k_cache(generator, IndexKLayout(), 4, torch.device("cpu"))
    q = torch.randn(2, 2, 32, 128, generator=generator).to(E4M3)
    weights = torch.randn(4, 32, generator=generator)
    compiled = torch.compile(
        lambda: paged_mqa_logits(q, cache, weights, lens, TABLE, 128, out=out, schedule=schedule),
        fullgraph=True,
        backend="aot_eager",
    )
    with assumed(hw), settings.override(paged_mqa_logits_backend="deep_gemm"):
        got = compiled()
    assert got.is_contiguous()
    assert torch.equal(got, eager)
    assert [call.name for call in library.calls] == ["fp8_paged_mqa_logits"]
