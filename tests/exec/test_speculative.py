"""Draft steps: worked out once and copied, or worked out for each; with one kernel, or tensor by tensor."""

from __future__ import annotations

import dataclasses
import logging
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from step_samples import ints, machine, table

from dsa_config import DSASettings, settings
from dsa_config.tools.readers import readers_of
from dsa_exec.core.errors import DeviceError, DtypeError, RangeError, ShapeError, StrideError
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.ops.step_metadata.copies import Pair, copy_at_once, copy_table
from dsa_exec.ops.step_metadata.launch import CopyLaunch
from dsa_exec.runtime import step_copies
from dsa_exec.runtime.speculative import DraftSteps
from dsa_exec.runtime.step import Step, prepare_step
from dsa_exec.runtime.step_copies import CopiesInCapture, StepCopies

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
WAYS = [
    pytest.param(once, fused, id=f"{'once' if once else 'each'}-{'fused' if fused else 'one by one'}")
    for once in (True, False)
    for fused in (True, False)
]
every_way = pytest.mark.parametrize(("once", "fused"), WAYS)
NEVER_WRITTEN = -(2**31)


def steps_of(count: int, mode: str = "decode", n: int = 1, *, b: int = 3, pages: int = 4, **more) -> list[Step]:
    lens = torch.arange(b, dtype=torch.int32) + 1
    return [prepare_step(mode, lens, table(b, pages), n, index_topk=64, **more) for _ in range(count)]


def forget(step: Step) -> None:
    for name, tensor in step.tensors().items():
        if name != "cu_rows":  # it follows from b and n alone, and is never worked out again
            tensor.fill_(NEVER_WRITTEN)


def expect_steps(steps, wanted) -> None:
    for number, (step, other) in enumerate(zip(steps, wanted, strict=True)):
        theirs = other.tensors()
        for name, tensor in step.tensors().items():
            assert torch.equal(tensor, theirs[name]), f"step {number}: {name}"


@pytest.fixture
def launches(monkeypatch):
    """What was copied at once, and how many pairs one by one."""
    from dsa_exec.ops.step_metadata.kernels import copies as kernels

    counted: list[str] = []
    at_once, one_by_one = kernels.launch_copies, step_copies.copy_one_by_one
    monkeypatch.setattr(kernels, "launch_copies", lambda it: (counted.append("launch"), at_once(it)))
    monkeypatch.setattr(
        step_copies, "copy_one_by_one", lambda pairs: (counted.extend("copy" for _ in pairs), one_by_one(pairs))
    )
    return counted


@needs_triton
@every_way
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("arch", ["sm90", "sm100", None])
def test_T14_every_tensor_of_every_step_is_refreshed(once, fused, count, arch):
    """T14: lengths, sums, pages, and the schedule with its lengths and pages, for any number of draft steps; the
    ancestor's copy to three left the schedules of the first three as they were.
    """
    hw = Capabilities("cpu", "cpu", "2.11.0", "3.6.0") if arch is None else machine(arch)
    scheduled = None if arch is None else True
    with assumed(hw):
        steps, fresh = steps_of(count, scheduled=scheduled), steps_of(1, scheduled=scheduled)
    drafts = DraftSteps(steps)
    for step in steps:
        forget(step)
    lens, pages = ints(70, 3, 200), table(3, 4) + 9
    with assumed(hw), settings.override(enable_mtp_precompute_metadata=once, use_fused_metadata_copy=fused):
        drafts.refresh(lens, pages)
        fresh[0].refresh(lens, pages)
    assert ("schedule.work" in steps[0].tensors()) is bool(scheduled)
    expect_steps(steps, fresh * count)


@needs_triton
@every_way
@pytest.mark.parametrize(("mode", "n"), [("target_verify", 3), ("draft_extend", 4)])
def test_T14_so_are_steps_of_several_rows(once, fused, mode, n):
    """T14: the same for verify and draft-extend, which the ancestor's fused copy does not take or takes in part."""
    with assumed(machine("sm100")), settings.override(paged_mqa_logits_backend="deep_gemm"):
        steps, fresh = steps_of(5, mode, n), steps_of(1, mode, n)
    drafts = DraftSteps(steps)
    with assumed(machine("sm100")):
        for step in steps:
            forget(step)
        with settings.override(enable_mtp_precompute_metadata=once, use_fused_metadata_copy=fused):
            drafts.refresh(ints(2, 90, 0), table(3, 4) - 3)
        fresh[0].refresh(ints(2, 90, 0), table(3, 4) - 3)
    expect_steps(steps, fresh * 5)


@needs_triton
@examples(deadline=None, max_examples=40)
@given(st.data())
def test_every_way_leaves_the_same_bits(data):
    """Any mode, sizes, number of steps and offsets: the four ways agree with steps that are made afresh."""
    mode = data.draw(st.sampled_from(["decode", "target_verify", "draft_extend"]))
    n = 1 if mode == "decode" else data.draw(st.integers(1, 4))
    b, pages, count = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 5)), data.draw(st.integers(1, 6))
    offsets = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    numbers = data.draw(st.lists(st.integers(0, 300), min_size=b, max_size=b))
    page_table = table(b, pages) * 3 - 1
    wanted = [
        prepare_step(mode, ints(*(number + offset for number in numbers)), page_table, n, index_topk=64)
        for offset in offsets
    ]
    for once in (True, False):
        for fused in (True, False):
            steps = steps_of(count, mode, n, b=b, pages=pages)
            drafts = DraftSteps(steps, offsets=offsets)
            with settings.override(enable_mtp_precompute_metadata=once, use_fused_metadata_copy=fused):
                drafts.refresh(ints(*numbers), page_table)
            expect_steps(steps, wanted)


@needs_triton
def test_a_fused_copy_is_one_launch_for_all_destinations(launches):
    """However many steps and tensors there are."""
    DraftSteps(steps_of(7, "target_verify", 2)).refresh(ints(5, 6, 7), table(3, 4))
    assert launches == ["launch"]


@needs_triton
def test_both_settings_matter_at_the_call(launches):
    """An override takes effect at the next refresh of steps that are there already."""
    drafts = DraftSteps(steps_of(3))
    with settings.override(use_fused_metadata_copy=False):
        drafts.refresh(ints(5, 6, 7), table(3, 4))
    assert launches
    assert set(launches) == {"copy"}
    launches.clear()
    drafts.refresh(ints(5, 6, 7), table(3, 4))
    assert launches == ["launch"]
    launches.clear()
    with settings.override(enable_mtp_precompute_metadata=False):
        drafts.refresh(ints(5, 6, 7), table(3, 4))
    assert launches == []


def test_both_settings_are_read():
    """`dsa config check` no longer calls them unread."""
    readers = readers_of(DSASettings)
    assert readers is not None
    assert any("runtime/speculative.py" in place for place in readers["enable_mtp_precompute_metadata"])
    assert any("runtime/step_copies.py" in place for place in readers["use_fused_metadata_copy"])


def test_without_precomputing_every_step_is_worked_out(monkeypatch):
    """On: once an offset. Off: once a step."""
    import dsa_exec.runtime.step as step_module

    counted: list[str] = []
    worked_out = step_module.step_metadata
    drafts = DraftSteps(steps_of(4))
    monkeypatch.setattr(step_module, "step_metadata", lambda *a, **k: (counted.append("once"), worked_out(*a, **k))[1])
    drafts.refresh(ints(5, 6, 7), table(3, 4))
    assert len(counted) == 1
    with settings.override(enable_mtp_precompute_metadata=False):
        drafts.refresh(ints(5, 6, 7), table(3, 4))
    assert len(counted) == 5


@needs_triton
def test_T27_an_error_of_the_fused_kernel_is_raised(monkeypatch):
    """T27: it is not printed, and nothing else is tried in its place; the ancestor copied one by one on any error."""
    from dsa_exec.ops.step_metadata.kernels import copies as kernels

    def broken(_table):
        raise RuntimeError("the launch failed")

    def never(_pairs):
        raise AssertionError("fell back")

    drafts = DraftSteps(steps_of(3))
    monkeypatch.setattr(kernels, "launch_copies", broken)
    monkeypatch.setattr(step_copies, "copy_one_by_one", never)
    with pytest.raises(RuntimeError, match="the launch failed"):
        drafts.refresh(ints(5, 6, 7), table(3, 4))


def test_where_triton_cannot_run_tensors_are_copied_one_by_one_and_it_is_said(monkeypatch, caplog):
    """Once, in the words of the refusal; on the CPU nothing is missed, and nothing said."""
    monkeypatch.setattr(step_copies, "_said", set())
    source, *others = steps_of(3)
    old = Capabilities("cuda", "sm90", "2.11.0", "3.4.0")
    with caplog.at_level(logging.WARNING, "dsa_exec.runtime"):
        with assumed(Capabilities("cpu", "cpu", "2.11.0", None)):
            on_the_cpu = StepCopies(source, others)
        on_the_cpu.run()
        with assumed(old):
            copies = StepCopies(source, others)
        with settings.override(use_fused_metadata_copy=False):
            copies.run()
        assert caplog.records == []
        copies.run()
        copies.run()
    assert on_the_cpu.refusal == "Triton is not installed"
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("the metadata of steps is copied tensor by tensor (Triton 3.4.0 is installed")
    source.refresh(ints(50, 60, 70), table(3, 4))
    copies.run()
    expect_steps(others, [source] * 2)


def test_each_step_may_see_more_tokens_than_the_one_before():
    """Offsets are added to the lengths; steps with the same offset hold the same."""
    steps = steps_of(4)
    DraftSteps(steps, offsets=[1, 2, 2, 3]).refresh(ints(5, 6, 7), table(3, 4))
    assert [step.metadata.cache_lens.tolist() for step in steps] == [[6, 7, 8], [7, 8, 9], [7, 8, 9], [8, 9, 10]]


def test_an_offset_beyond_int32_is_told():
    """Lengths are added up in int64 and checked, not wrapped, before any step is written to."""
    steps = steps_of(2)
    with pytest.raises(RangeError, match="seq_lens holds 2147483648"):
        DraftSteps(steps, offsets=[0, 1]).refresh(ints(2**31 - 1, 0, 0), table(3, 4))
    expect_steps(steps, steps_of(2))


def test_lengths_of_another_dtype_are_told():
    """Before an offset is added, which would hide it."""
    with pytest.raises(DtypeError, match="^draft steps: seq_lens is float32"):
        DraftSteps(steps_of(1), offsets=[1]).refresh(torch.tensor([1.5, 2.0, 3.0]), table(3, 4))


def test_steps_of_a_chain_are_of_one_kind():
    """Other modes, sizes, or one with a schedule and one without: both kinds are named."""
    step = steps_of(1)[0]
    with assumed(machine("sm100")):
        scheduled = steps_of(1, scheduled=True)[0]
    for other, words in (
        (steps_of(1, b=2)[0], "is a step of mode=decode, b=2, .* wanted mode=decode, b=3,"),
        (steps_of(1, pages=5)[0], "pages=5"),
        (steps_of(1, "draft_extend")[0], "mode=draft_extend"),
        (steps_of(1, "target_verify", 2)[0], "n=2"),
        (scheduled, "a schedule of form=expanded, num_sms=8, cache_pages=0; wanted .*no schedule"),
        (dataclasses.replace(step, index_topk=9), "index_topk=9"),
    ):
        with pytest.raises(ShapeError, match=rf"^draft steps: steps\[1\] .*{words}"):
            DraftSteps([step, other])
        with pytest.raises(ShapeError, match=r"^step copies: destinations\[0\] is a step of"):
            StepCopies(step, [other])


def test_a_step_with_other_tensors_is_no_destination():
    """One that the source has and it lacks, or the other way round: that would stay as it is."""
    whole, other = steps_of(2)
    part = dataclasses.replace(other, metadata=dataclasses.replace(other.metadata, page_table=None))
    for source, destination in ((whole, part), (part, whole)):
        with pytest.raises(
            ShapeError, match=r"destinations\[0\] has .*metadata.cache_lens.*; wanted .*, as the source has"
        ):
            StepCopies(source, [destination])


def test_schedules_of_other_sizes_are_no_copies_of_each_other():
    """What was made for other multiprocessors is not overwritten in part."""
    with assumed(machine("sm100")):
        few = steps_of(1, scheduled=True)[0]
    with assumed(machine("sm100", num_sms=9)):
        many = steps_of(1, scheduled=True)[0]
    with pytest.raises(ShapeError, match="num_sms=9.*wanted.*num_sms=8"):
        StepCopies(few, [many])


@pytest.mark.parametrize(
    ("words", "steps", "offsets"),
    [
        ("steps has no step; wanted at least one", [], None),
        ("offsets has 1 numbers; wanted 2, one for each step", steps_of(2), [0]),
        ("offsets is -1; wanted an integer of at least 0", steps_of(2), [0, -1]),
        (r"steps\[1\] is there twice", steps_of(1) * 2, None),
    ],
)
def test_what_draft_steps_are_not_made_for_is_an_error(words, steps, offsets):
    """The error names the argument, what came and what is wanted."""
    with pytest.raises((ShapeError, RangeError), match=f"^draft steps: {words}"):
        DraftSteps(steps, offsets=offsets)


def test_copies_are_not_prepared_while_a_graph_is_captured(monkeypatch):
    """It would take a transfer to the device: said in a sentence, before anything is done."""
    monkeypatch.setattr(step_copies, "is_capturing", lambda _: True)
    with pytest.raises(CopiesInCapture, match="a CUDA graph is being captured; make them before"):
        DraftSteps(steps_of(2))


@needs_triton
@pytest.mark.parametrize("elements", [1, 2, 8, 2048])
def test_rows_apart_and_odd_addresses_are_copied_exactly(elements):
    """What lies between and beside the rows of a destination stays as it was."""
    pool = torch.full((5, 40), NEVER_WRITTEN, dtype=torch.int32)
    source = torch.arange(200, dtype=torch.int32).view(5, 40)
    pairs = [
        Pair("both apart", source[:, 3:20], pool[:, 1:18]),
        Pair("one row", source[1, 5:9], pool[0, 21:25]),
        Pair("one column", source[:4, 9:10], pool[1:, 39:]),
        Pair("nothing", source[:, :0], pool[:, :0]),
        Pair("no row", source[:0], pool[:0]),
    ]
    copy_at_once(copy_table(pairs, CopyLaunch(elements, 1)))
    wanted = torch.full_like(pool, NEVER_WRITTEN)
    wanted[:, 1:18] = source[:, 3:20]
    wanted[0, 21:25] = source[1, 5:9]
    wanted[1:, 39:] = source[:4, 9:10]
    assert torch.equal(pool, wanted)


@needs_triton
def test_a_contiguous_pair_is_one_run():
    """A wide table without gaps takes a program for every so many elements, not one for every row."""
    source = torch.arange(6000, dtype=torch.int32).view(2000, 3)
    made = copy_table([Pair("table", source, torch.zeros_like(source))], CopyLaunch(1024, 1))
    assert made.entry_of_program.shape == (6,)
    copy_at_once(made)
    assert torch.equal(made.pairs[0].destination, source)


def test_nothing_to_copy_is_no_launch(launches):
    """A chain of one step, and steps without requests or pages."""
    copy_at_once(copy_table([Pair("nothing", ints(), ints())], CopyLaunch(8, 1)))
    DraftSteps(steps_of(1)).refresh(ints(5, 6, 7), table(3, 4))
    assert launches == []


@pytest.mark.parametrize(
    ("error", "words", "source", "destination"),
    [
        (DtypeError, "it is torch.int64; wanted torch.int32", torch.zeros(2, dtype=torch.int64), ints(1, 2)),
        (ShapeError, r"it of a destination has shape \[3\]; wanted \[2\]", ints(1, 2), ints(1, 2, 3)),
        (StrideError, "it has shape", table(2, 2).T, table(2, 2)),
        (StrideError, "it has shape", table(2, 2)[None], table(2, 2)[None]),
        (StrideError, "rows that do not overlap", table(2, 2), ints(1, 2).expand(2, 2)),
        (DeviceError, "it of a destination is on meta; wanted cpu", ints(1), ints(1).to("meta")),
    ],
)
def test_tensors_that_do_not_fit_are_no_pair(error, words, source, destination):
    """Dtype, shape, strides and device of both are as one kernel can copy them."""
    with pytest.raises(error, match=f"^step copies: .*{words}"):
        Pair("it", source, destination)


@needs_triton
def test_launch_parameters_change_nothing():
    """Whatever `kernel_launch` says, the bits are the same."""
    steps = steps_of(3, "target_verify", 3)
    with settings.override(kernel_launch="step_metadata.copies.elements=4 step_metadata.copies.warps=1"):
        drafts = DraftSteps(steps)
    drafts.refresh(ints(9, 80, 3), table(3, 4) + 1)
    expect_steps(steps, [prepare_step("target_verify", ints(9, 80, 3), table(3, 4) + 1, 3, index_topk=64)] * 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("count", [2, 4, 8])
def test_on_a_gpu_a_captured_copy_follows_its_source(count):
    """Steps of 64 requests over 2048 pages: one launch, in a graph, gives the bits of copies one by one."""
    generator = torch.Generator().manual_seed(5)
    pages = torch.randint(0, 2**20, (64, 2048), generator=generator, dtype=torch.int32).cuda()
    lens = torch.randint(0, 10**5, (64,), generator=generator, dtype=torch.int32).cuda()
    steps = [prepare_step("target_verify", lens, pages, 3, index_topk=2048) for _ in range(count)]
    copies = StepCopies(steps[0], steps[1:])
    assert copies.refusal is None
    copies.run()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        copies.run()
    for _ in range(3):
        lens.add_(7)
        pages.add_(1)
        steps[0].refresh(lens, pages)
        for step in steps[1:]:
            forget(step)
        graph.replay()
        fused = [{name: tensor.clone() for name, tensor in step.tensors().items()} for step in steps[1:]]
        with settings.override(use_fused_metadata_copy=False):
            copies.run()
        for step, copied in zip(steps[1:], fused, strict=True):
            assert all(torch.equal(tensor, copied[name]) for name, tensor in step.tensors().items())
