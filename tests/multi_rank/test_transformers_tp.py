"""Models that transformers splits over ranks: the tokens of one process, from heads of each rank's own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy
import pytest
import tiny_models
import torch
from multi_rank import transformers_cases as cases

import dsa_exec
from dsa_config import settings
from dsa_exec.integrations.transformers import load_checkpoint, load_tiny

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="transformers splits over GPUs where there are any; hide them to run these"
)
PAGE = (Path(dsa_exec.__file__).parents[1] / "docs" / "transformers.md").read_text("utf-8")
TEXT = b"import os\nimport sys\n\n\ndef area(width, height):\n    return width * height\n\n\nclass Stack:\n    def push"
PROMPTS = {
    None: [list(TEXT * 2), list(TEXT * 2)[:150]],  # the trained model: of two lengths, so that one is padded
    "deepseek_v32": [tiny_models.prompt(1, 150), tiny_models.prompt(2, 90), tiny_models.prompt(3, 149)],
    "glm_moe_dsa": [tiny_models.prompt(4, 150), tiny_models.prompt(5, 130)],
}
NEW = 5
LOGITS_WITHIN = {"model": 1e-3, "fp8": 0.1}
"""The sum over ranks is added up in another order than in one process. What that changes is rounded away or not where
values are stored in FP8, and a token in a thousand is selected in the place of another.
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a random model of a type, which is saved once; None for the trained one."""
    saved: dict[str, str] = {}

    def folder(kind: str | None) -> str | None:
        if kind is not None and kind not in saved:
            path = tmp_path_factory.mktemp(kind)
            tiny_models.build(kind).save_pretrained(path)
            saved[kind] = str(path)
        return None if kind is None else saved[kind]

    return folder


@pytest.mark.parametrize(
    ("size", "kind", "formats"),
    [
        ("two", None, "fp8"),
        ("two", None, "model"),
        ("two", "glm_moe_dsa", "fp8"),
        ("four", "deepseek_v32", "model"),
    ],
)
def test_ranks_give_the_tokens_of_one_process(size, kind, formats, request, checkpoint):
    """Of padded batches, in prefill and decode; all ranks have the same logits and select the same, bit for bit."""
    folder = checkpoint(kind)
    whole = load_tiny(cases.CPU) if folder is None else load_checkpoint(folder, cases.CPU)
    with settings.override(index_k_format=formats, kv_format=formats):
        wanted = cases.continued(whole.model, PROMPTS[kind], NEW)
    first, *others = request.getfixturevalue(size).run(cases.run_split, folder, PROMPTS[kind], NEW, formats)
    for number, one in enumerate(wanted):
        assert first[number].tokens == one.tokens
        assert numpy.abs(first[number].logits - one.logits).max() <= LOGITS_WITHIN[formats]
        assert one.selections, "the prompt is long enough for rows to select"
        for layer, rows in one.selections.items():
            assert in_common(rows, first[number].selections[layer]) > (0.99 if formats == "fp8" else 0.9999)
        for other in others:
            assert_same(first[number], other[number])


def assert_same(left, right):
    """The same to the last bit, so that ranks can never choose different tokens."""
    assert left.tokens == right.tokens
    assert numpy.array_equal(left.logits, right.logits)
    assert left.selections.keys() == right.selections.keys()
    assert all(numpy.array_equal(rows, right.selections[layer]) for layer, rows in left.selections.items())


def in_common(left, right) -> float:
    """The share of positions that both have selected, over all rows."""
    pairs = [(set(a[a >= 0]), set(b[b >= 0])) for a, b in zip(left, right, strict=True)]
    return sum(len(a & b) for a, b in pairs) / sum(len(a) for a, _ in pairs)


def test_heads_are_split_and_nothing_else_of_attention(two):
    """Each rank has half of the six heads; what selects is whole on both."""
    one, other = two.run(cases.local_heads)
    assert one == other
    assert (one["q_b_proj.weight"], one["kv_b_proj.weight"], one["o_proj.weight"]) == ((288, 64), (192, 512), (192, 96))
    assert (one["indexer.wq_b.weight"], one["indexer.wk.weight"]) == ((4096, 64), (128, 192))
    assert one["indexer.weights_proj.weight"] == (32, 192)


def test_heads_that_ranks_cannot_share_are_told_before_anything_is_loaded(four, two):
    """One sentence with the value and what is allowed, on every rank; so are a device map and another device."""
    told = set(four.run(cases.refused_load, None, "cpu", None))
    assert len(told) == 1
    words = r"^CheckpointError: .*config.json: num_attention_heads is 6, of which 4 ranks cannot have equal parts; "
    assert re.search(words + "wanted 1 or 2$", told.pop())
    (words,) = set(two.run(cases.refused_load, None, "cpu", "auto"))
    assert words == "NotSupported: device_map and ranks say both where the model goes: leave one out"
    (words,) = set(two.run(cases.refused_load, None, "meta", None))
    assert words.startswith("NotSupported: the device is meta, and transformers splits a model over ")


def test_parts_that_are_no_whole_heads_are_refused(two):
    """As another plan may make them: half a head, queries of all heads, a hook that would be passed by."""
    (told,) = {tuple(it) for it in two.run(cases.refused_parts)}
    half, queries, hook = told
    assert half == (
        "NotSupported: kv_b_proj has 160 of its rows on this rank, which are no whole heads of 64: split the model's 6 "
        "heads over a number of ranks that divides them"
    )
    assert queries == (
        "NotSupported: this rank has 3 heads of kv_b_proj, 6 of q_b_proj and 3 of o_proj: the plan of tensor "
        "parallelism must split all three alike"
    )
    assert hook == (
        "NotSupported: kv_b_proj has a hook; our attention takes the weight of kv_b_proj alone: merge adapters and "
        "remove hooks first"
    )


def test_no_gradient_passes_a_split_model(two):
    """It would lack what comes from the heads of the other ranks."""
    (told,) = set(two.run(cases.backward))
    assert told == (
        "NotSupported: no gradient passes our attention in a model that is split over ranks: disable(model) to train it"
    )


def test_the_script_of_the_page(two):
    """It runs, and all ranks have the text of one process."""
    (source,) = re.findall(r"^```\n(import torch\nimport torch\.distributed.*?)^```$", PAGE, re.M | re.S)
    one, other = two.run(cases.run_script, source)
    assert one == other
    whole = load_tiny(cases.CPU).model
    (alone,) = cases.continued(whole, [one[:-12]], 12)
    assert one[-12:] == alone.tokens
