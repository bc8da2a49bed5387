"""The parts of `dsa bench`: what is judged as right, how passes are read, how times are put together."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import build

from dsa_config import settings
from dsa_exec.cli.bench import passes
from dsa_exec.cli.bench.asked import Piece, decode_tokens_of, pieces_of
from dsa_exec.cli.bench.checking import References, judge
from dsa_exec.cli.bench.failures import FailedRun, reason_of
from dsa_exec.cli.bench.passes import Results, Text, read_plainly, text_of
from dsa_exec.cli.bench.sides import sides_of, torch_reference
from dsa_exec.cli.bench.timing import figure_of, ratio_of, time_in_turn
from dsa_exec.core.errors import DsaError
from dsa_exec.integrations.transformers.bytes_tokenizer import BytesTokenizer
from dsa_exec.integrations.transformers.checkpoint import Loaded

TEXT = Text(torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64))
LOGITS = torch.tensor([[[0.0, 10.0], [10.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]]])
SELECTED = {0: torch.tensor([[[0, 1]] * 6] * 2, dtype=torch.int32)}


def judged(change=lambda _: None, selected=None, allowed=(0.01, 0.9)):
    logits = LOGITS.clone()
    change(logits)
    found = Results(logits, SELECTED if selected is None else selected)
    return judge(Results(LOGITS, SELECTED), found, TEXT, "the other", allowed)


def test_what_is_equal_is_right():
    """No difference, all positions, all tokens."""
    check, wrong = judged()
    assert wrong is None
    assert (check.largest_logit_difference, check.selected_in_common) == (0.0, 1.0)
    assert (check.tokens_in_common, check.steps, check.allowed_logit_difference) == (4, 4, pytest.approx(0.1))


def test_a_logit_that_is_too_far_off_is_told_with_its_place():
    """The first step and request, and what either would go on with."""

    def change(logits: torch.Tensor) -> None:
        logits[1, 1, 1] += 9

    check, wrong = judged(change)
    assert check.tokens_in_common == 3
    assert wrong == (
        "logits differ from the other by up to 9, and 0.1 is allowed; first after 1 more token of request 1, where "
        "the other would go on with token 0, this would go on with token 1"
    )


def test_a_difference_within_what_is_allowed_is_right():
    """Up to a share of the reference's largest logit."""
    assert judged(lambda logits: logits.add_(0.099))[1] is None
    assert judged(lambda logits: logits.add_(0.101))[1] is not None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_wrong(bad):
    """And the report can be written as JSON all the same."""
    check, wrong = judged(lambda logits: logits[0, 0].fill_(bad))
    assert wrong is not None
    assert math.isfinite(check.largest_logit_difference)


def test_other_positions_are_wrong_though_logits_are_right():
    """A share of those of the reference; what lies after a row, or is negative, counts for neither."""
    other = {0: torch.tensor([[[0, 5]] * 6] * 2, dtype=torch.int32)}
    check, wrong = judged(selected=other)
    # Of a request's rows, the first can select one position and the others two: 11, of which 6 are the first.
    assert check.selected_in_common == pytest.approx(6 / 11)
    assert wrong == "54.5% of the positions that the other selects are selected, and 90.0% are wanted"
    assert judged(selected=other, allowed=(0.01, 0.5))[1] is None
    assert judged(selected={})[0].selected_in_common is None


def test_plain_transformers_reads_a_prompt_in_chunks(monkeypatch):
    """Its logits and positions are those of the prompt at once, however few rows a chunk has."""
    model = build("deepseek_v32")
    loaded = Loaded(model, BytesTokenizer(), "tiny")
    text = text_of(loaded, "What is read here is of no account. ", 2, 300, 3)
    found = []
    for most_bytes in (2**40, 2**20, 1):
        monkeypatch.setattr(passes, "PLAIN_BYTES", most_bytes)
        with torch.no_grad():
            found.append(read_plainly(model, text))
    whole = model(text.prompt, logits_to_keep=1).logits[:, 0]
    assert torch.allclose(found[0].logits[:, 0], whole, atol=1e-3)
    for other in found[1:]:
        _, wrong = judge(found[0], other, text, "whole", (1e-4, 1.0))
        assert wrong is None
    assert {layer: tuple(it.shape) for layer, it in found[0].selected.items()} == {0: (2, 128, 48), 1: (2, 128, 48)}


def test_requests_read_other_parts_of_the_passage():
    """Each begins at another place, and the passage begins again where it ends."""
    loaded = Loaded(build("deepseek_v32"), BytesTokenizer(), "tiny")
    text = text_of(loaded, "abcde", 2, 7, 2)
    assert [bytes(row).decode() for row in text.prompt.tolist()] == ["abcdeab", "bcdeabc"]
    assert [bytes(row).decode() for row in text.following.tolist()] == ["cd", "de"]


def test_references_are_worked_out_once(monkeypatch):
    """Two sides with the same formats have one."""
    model = build("deepseek_v32")
    text = text_of(Loaded(model, BytesTokenizer(), "tiny"), "abcde", 1, 60, 1)
    references = References(model, text)
    reads = []
    monkeypatch.setattr(
        references, "_read_on_torch", lambda formats: reads.append(formats) or read_plainly(model, text)
    )
    for formats in (("fp8", "fp8"), ("fp8", "model"), ("fp8", "fp8")):
        with torch.no_grad():
            _, wrong = references.check(read_plainly(model, text), formats)
        assert wrong is None
    assert reads == [("fp8", "fp8"), ("fp8", "model")]


def test_the_reference_has_all_settings_at_their_defaults_but_two():
    """Whatever the process or the side has set."""
    with settings.override(fuse_topk=False, topk_backend="triton"), torch_reference(("model", "fp8")):
        assert (settings.index_k_format, settings.kv_format) == ("model", "fp8")
        assert (settings.fuse_topk, settings.topk_backend, settings.step_metadata_backend) == (True, "torch", "torch")


def test_sides():
    """One without --b; without --a, a is the settings as they are."""
    (alone,) = sides_of(["fuse_topk=0"], None)
    assert (alone.name, dict(alone.given), alone.formats()) == ("a", {"fuse_topk": "0"}, ("fp8", "fp8"))
    a, b = sides_of([], ["kv_format=model"])
    assert (a.given, b.formats()) == ({}, ("fp8", "model"))


def test_work():
    """Both kinds where nothing or both is said, else the one that is; steps that are asked for are those of decode."""
    assert pieces_of("1K,2", None, None) == [Piece("prefill", 2, 1), Piece("prefill", 1024, 1)]
    assert pieces_of(None, "5", "7") == [Piece("decode", 5, 7)]
    assert pieces_of("3", "5", None) == [Piece("prefill", 3, 1), Piece("decode", 5, 16)]
    assert [it.phase for it in pieces_of(None, None, None)] == ["prefill", "prefill", "decode", "decode"]
    assert decode_tokens_of(pieces_of("3", "5", None)) == 16
    assert decode_tokens_of(pieces_of("3", None, None)) is None


class Fake:
    """A runner that notes its turn."""

    def __init__(self, name: str, turns: list[str]) -> None:
        self._name = name
        self._turns = turns

    def seconds(self) -> list[float]:
        self._turns.append(self._name)
        return [float(len(self._turns))]


def test_sides_take_turns():
    """After a warm-up, in one order and then in the other: what changes with time changes for both."""
    turns: list[str] = []
    told: list[int] = []
    found = time_in_turn([Fake("a", turns), Fake("b", turns)], 4, lambda: told.append(0))
    assert "".join(turns) == "ba" + "abba" * 2
    assert len(told) == 5
    assert found == [[[3.0], [6.0], [7.0], [10.0]], [[4.0], [5.0], [8.0], [9.0]]]


def test_who_fails_is_told_by_number():
    """And why, in the first line that has words; an interrupt passes through."""

    class Fails(Fake):
        def seconds(self) -> list[float]:
            raise error

    error: BaseException = KeyError("\n\nfoo")
    with pytest.raises(FailedRun, match="while it was timed: KeyError: ") as raised:
        time_in_turn([Fake("a", []), Fails("b", [])], 1, lambda: None)
    assert raised.value.number == 1
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        time_in_turn([Fails("a", [])], 1, lambda: None)


def test_what_was_raised_in_words():
    """An error of ours speaks for itself; of others the type is told, and all there is where nothing is said."""
    assert reason_of(DsaError("topk: refused\nmore")) == "topk: refused"
    assert reason_of(RuntimeError("\n  \nfailed\nmore")) == "RuntimeError: failed"
    assert reason_of(ValueError()) == "ValueError"
    assert reason_of(torch.OutOfMemoryError("no memory")) == "no memory"


def test_figures_and_ratios():
    """Medians with their tenths over all passes; the ratio is that of repetitions, not of medians."""
    figure = figure_of([[0.001, 0.003], [0.002, 0.004]])
    assert (figure.median_ms, figure.samples) == (2.5, 4)
    assert 1.0 <= figure.p10_ms <= 2.5 <= figure.p90_ms <= 4.0
    assert figure_of([[0.5]]).model_dump() == {"median_ms": 500.0, "p10_ms": 500.0, "p90_ms": 500.0, "samples": 1}
    ratio = ratio_of([[1.0], [10.0], [2.0]], [[2.0], [10.0], [6.0]])
    assert (ratio.median, ratio.least, ratio.most) == (2.0, 1.0, 3.0)
