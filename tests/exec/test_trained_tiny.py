"""The trained model that ships with the project: what plain transformers writes, and what it was asked to remember."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest
import torch
from oracles.fake_quant import fake_quantised
from tiny_models import UNQUANTISED

import dsa_exec
from dsa_config import settings
from dsa_exec.integrations.transformers import attached, load_tiny
from dsa_exec.integrations.transformers.greedy import Continuation, agreement, continue_greedily

ROOT = Path(dsa_exec.__file__).parents[1]
NEW = 16
PLACES = [
    (file, length)
    for file, lengths in {
        "dsa_exec/runtime/attend.py": (1500, 150, 260),
        "dsa_exec/core/errors.py": (600, 180, 330),
        "dsa_exec/dispatch/select.py": (500, 140, 370),
        "dsa_config/declarations/dsa.py": (450, 200, 300),
        "dsa_exec/layouts/views.py": (160, 240, 420),
        "examples/trained_model/corpus.py": (170, 350),
        "tests/live_tensors.py": (190, 280, 380),
    }.items()
    for length in lengths
]
"""Where 20 prompts come from, and how many bytes each has: more than the 128 that the model selects."""


@pytest.fixture(scope="module")
def model():
    return load_tiny(torch.device("cpu")).model


def prompt(file: str, length: int) -> list[int]:
    """The bytes up to somewhere in a file."""
    text = (ROOT / file).read_bytes()
    start = (len(text) - length) * (length % 7) // 7
    return list(text[start : start + length])


def expect_same_tokens(reference: Continuation, other: Continuation, within: float) -> None:
    """Token for token, unless the reference itself finds two tokens as likely as each other, to rounding."""
    step = agreement(reference, other).first_divergence
    if step is not None:
        best = reference.logits[step].topk(2).values
        assert float(best[0] - best[1]) < within, f"token {step} of {len(reference.tokens)} is another"


def test_there_are_twenty_prompts():
    """Of several files and lengths."""
    assert len(set(PLACES)) == 20
    assert min(length for _, length in PLACES) > 128


@pytest.mark.parametrize(("file", "length"), PLACES)
def test_nothing_quantised_writes_what_plain_transformers_writes(model, file, length):
    """Formats `model`: token for token, with the same positions selected and logits equal to rounding."""
    tokens = prompt(file, length)
    plain = continue_greedily(model, tokens, NEW)
    with settings.override(**UNQUANTISED), attached(model):
        ours = continue_greedily(model, tokens, NEW)
    expect_same_tokens(plain, ours, within=1e-3)
    agreed = agreement(plain, ours)
    assert agreed.selected_in_common > 0.9999
    assert agreed.largest_logit_difference < 1e-3


@pytest.mark.parametrize(("file", "length"), PLACES)
def test_fp8_writes_what_the_fake_quantised_oracle_writes(model, file, length):
    """Formats `fp8`: token for token what plain transformers writes on rounded index vectors and latents."""
    tokens = prompt(file, length)
    with fake_quantised(model):
        oracle = continue_greedily(model, tokens, NEW)
    with attached(model):
        ours = continue_greedily(model, tokens, NEW)
    expect_same_tokens(oracle, ours, within=0.1)
    agreed = agreement(oracle, ours)
    assert agreed.selected_in_common > 0.999
    assert agreed.largest_logit_difference < 0.1  # against the unquantised model it is 0.2 to 0.3


@pytest.mark.parametrize("formats", [UNQUANTISED, {}], ids=["model", "fp8"])
@pytest.mark.parametrize("seed", range(3))
def test_a_number_is_found_again_by_128_of_a_thousand_positions(model, formats, seed):
    """A note is far from the question about it, and is among what is selected: the answer is right."""
    retrieval = _retrieval()
    text = (ROOT / "dsa_exec/dispatch/select.py").read_bytes()
    asked, answer = retrieval.prompt(text, 1024, 4, random.Random(seed))
    with settings.override(**formats), attached(model):
        got = continue_greedily(model, list(asked), retrieval.VALUE)
    assert bytes(got.tokens) == answer


def _retrieval():
    """The task, from the scripts that trained the model."""
    path = ROOT / "examples/trained_model/retrieval.py"
    spec = importlib.util.spec_from_file_location("dsa_trained_model_retrieval", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module
