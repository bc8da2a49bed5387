"""Greedy continuation, and how two of them are compared."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import build, prompt

from dsa_exec.core.errors import RangeError
from dsa_exec.integrations.transformers import NotFinite
from dsa_exec.integrations.transformers.greedy import Agreement, Continuation, agreement, continue_greedily


def continuation(tokens, logits=None, selected=((0,), (0,))) -> Continuation:
    logits = torch.zeros(len(tokens), 3) if logits is None else torch.tensor(logits)
    return Continuation(tokens, logits, {0: torch.tensor(selected, dtype=torch.int32)}, 0.0, 0.0)


def test_logits_count_up_to_the_step_that_diverges():
    """That step is still chosen from the same history; what comes after is not."""
    reference = continuation([1, 2, 0], [[0.0, 5.0, 0.0], [0.0, 0.0, 1.0], [9.0, 0.0, 0.0]])
    other = continuation([1, 1, 0], [[0.0, 5.5, 0.0], [0.0, 3.0, 1.0], [-9.0, 0.0, 0.0]])
    assert agreement(reference, other) == Agreement(1, 1.0, 3.0)
    assert agreement(reference, reference) == Agreement(None, 1.0, 0.0)


@pytest.mark.parametrize(("left", "right"), [([1, 2], [1, 2, 0]), ([1, 2, 0], [1, 2])])
def test_an_earlier_end_is_a_divergence(left, right):
    """A continuation that stops where the other goes on differs there; logits count as far as both go."""
    assert agreement(continuation(left), continuation(right)) == Agreement(2, 1.0, 0.0)


def test_rows_select_up_to_themselves():
    """A row's own position counts, a later one or a negative one does not."""
    reference = continuation([1], selected=((0, 1, 2), (1, 0, -1), (2, 1, 0)))
    other = continuation([1], selected=((0, -1, -1), (0, 2, -1), (1, 0, -1)))
    assert agreement(reference, other).selected_in_common == pytest.approx(4 / 6)


def test_what_was_not_selected_is_not_compared():
    """Where rows attend to all that they see, there is no share of selected positions to tell."""
    dense = Continuation([1], torch.zeros(1, 3), {}, 0.0, 0.0)
    assert agreement(continuation([1]), dense) == Agreement(None, None, 0.0)
    assert agreement(dense, continuation([1])) == Agreement(None, None, 0.0)


@pytest.mark.parametrize(
    ("tokens", "new", "words"),
    [([], 2, "prompt is empty; wanted at least one token"), ([1], 0, "max_new_tokens is 0; wanted an integer")],
)
def test_nothing_to_do_is_an_error(tokens, new, words):
    """No prompt, or no token wanted."""
    with pytest.raises(RangeError, match=words):
        continue_greedily(build("deepseek_v32"), tokens, new)


def test_logits_that_are_no_numbers_are_refused():
    """A damaged parameter is named; where none is, the dtype has overflown."""
    model = build("deepseek_v32")
    with torch.no_grad():
        model.lm_head.weight[3, 0] = math.nan
    with pytest.raises(NotFinite, match="NaN or infinite, as is its parameter lm_head.weight"):
        continue_greedily(model, prompt(0, 5), 2)
    with torch.no_grad():
        model.lm_head.weight.fill_(3e38)
    with pytest.raises(NotFinite, match=r"NaN or infinite after 5 tokens: they overflow in torch\.float32"):
        continue_greedily(model, prompt(0, 5), 2)
