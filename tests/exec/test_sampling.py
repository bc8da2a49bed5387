"""How the next token is chosen: the likeliest, or drawn, with the same noise for the same seed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa_exec.core.errors import RangeError
from dsa_exec.integrations.transformers.sampling import Sampling, likeliest

LOGITS = torch.tensor([1.0, 3.0, 2.0, 0.0])


def drawn(sampling: Sampling, logits: torch.Tensor, times: int) -> torch.Tensor:
    """How often each token is drawn, as a share."""
    choose = sampling.chooser()
    return torch.bincount(torch.tensor([choose(logits) for _ in range(times)]), minlength=len(logits)) / times


def test_without_a_temperature_the_likeliest_is_taken():
    """Nothing is drawn; of equal logits the first token wins."""
    choose = Sampling().chooser(5)
    assert [choose(LOGITS), choose(torch.zeros(3))] == [1, 0]
    assert Sampling().is_greedy
    assert not Sampling(0.1).is_greedy


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_shares_are_those_of_the_softmax(temperature):
    """Of many draws, each token has the share of the softmax of logits over temperature, within three deviations."""
    times = 4000
    shares = (LOGITS / temperature).softmax(0)
    found = drawn(Sampling(temperature), LOGITS, times)
    assert ((found - shares).abs() <= 3.5 * (shares * (1 - shares) / times).sqrt()).all()


def test_top_k_and_top_p_leave_out_the_others():
    """The k likeliest; the fewest that have the probability together, of those that top_k leaves; always one."""
    hot = 50.0
    assert set(drawn(Sampling(hot, top_k=2), LOGITS, 300).nonzero().flatten().tolist()) == {1, 2}
    assert set(drawn(Sampling(hot, top_k=9), LOGITS, 300).nonzero().flatten().tolist()) == {0, 1, 2, 3}
    # The probabilities at temperature 1 are 0.24, 0.64, 0.09, 0.03 of the tokens 2, 1, 0, 3 by size 0.64, 0.24, ...
    for top_p, kept in ((0.6, {1}), (0.7, {1, 2}), (0.9, {1, 2, 0}), (1e-9, {1}), (1.0, {0, 1, 2, 3})):
        assert set(drawn(Sampling(1.0, top_p=top_p), LOGITS, 600).nonzero().flatten().tolist()) == kept, top_p
    # Of two, the first has 0.73: enough for 0.7, though it would not be among all four.
    assert set(drawn(Sampling(1.0, top_k=2, top_p=0.7), LOGITS, 300).nonzero().flatten().tolist()) == {1}


def test_as_many_as_k_are_kept_of_equal_logits():
    """Ties do not let more in: the first tokens are kept."""
    assert set(drawn(Sampling(1.0, top_k=2), torch.zeros(5), 200).nonzero().flatten().tolist()) == {0, 1}


def test_a_seed_and_a_request_have_draws_of_their_own():
    """The same two give the same draws; another of either gives others, and the next seed is the next request."""
    logits = torch.zeros(1000)

    def draws(seed: int, request: int) -> list[int]:
        choose = Sampling(1.0, seed=seed).chooser(request)
        return [choose(logits) for _ in range(5)]

    assert draws(3, 0) == draws(3, 0)
    assert draws(3, 0) != draws(4, 0) == draws(3, 1)
    assert draws(2**63 - 1, 1) == draws(0, 0)  # the numbers go round


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=20), st.floats(1e-3, 10), st.integers(0, 1000))
def test_almost_the_same_logits_draw_the_same_token(logits, temperature, seed):
    """Noise does not depend on logits: a difference far below the gap between the best two sums changes nothing."""
    values = torch.tensor(logits)
    first, second = (Sampling(temperature, seed=seed).chooser() for _ in range(2))
    changed = values.double() + 3.0  # the softmax is the same
    assert [first(values) for _ in range(3)] == [second(changed) for _ in range(3)]


@pytest.mark.parametrize("temperature", [1e-300, 5e-324])
def test_a_temperature_that_is_almost_none(temperature):
    """It is the likeliest token, and no NaN comes up."""
    assert Sampling(temperature).chooser()(LOGITS) == likeliest(LOGITS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; wanted a number of at least 0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": 0}, "top_k is 0; wanted an integer of at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0; wanted a number above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"seed": -1}, "seed is -1; wanted an integer from 0 to"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
    ],
)
def test_numbers_that_mean_nothing(options, words):
    """Each is refused with its name and value."""
    with pytest.raises(RangeError, match=words.replace(".", r"\.")):
        Sampling(**options)
