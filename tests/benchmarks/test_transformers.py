"""`python -m benchmarks transformers`: what it measures where there is no GPU, and how it tells what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.command import main
from benchmarks.transformers import agreement, models
from benchmarks.transformers.contexts import COMPILED, FP8, MODEL, PLAIN, Way, measure
from benchmarks.transformers.record import TransformersRecord
from benchmarks.transformers.table import BEGIN, END, page, written

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/transformers.md"
SIZES = {"index_topk": 16, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
ASKED = "CUDA out of memory. Tried to allocate 256.00 GiB. GPU 0 has a total capacity of 79.19 GiB"


@pytest.fixture
def model():
    return models.synthetic(models.geometry(SIZES, on_gpu=False), torch.device("cpu"), torch.float32)


def test_every_way_is_measured_over_every_context(model):
    """Prefill and a step for each, with the bytes that its cache takes: in fp8 788 a token and layer."""
    rows = list(measure(model, [40, 70], [FP8, MODEL, Way(PLAIN, None)], 2))
    assert [(row.tokens, row.way) for row in rows] == [
        (tokens, way) for tokens in (40, 70) for way in ("dsa, fp8", "dsa, model's dtype", PLAIN)
    ]
    for row in rows:
        assert row.prefill.milliseconds > 0
        assert row.decode.milliseconds > 0
        assert row.prefill.extra_bytes is None  # of the CPU's memory nothing is known
        assert not row.is_filled
    assert rows[0].cache_bytes == 64 * 2 * (656 + 132)
    assert rows[1].cache_bytes == 64 * 2 * (512 + 64 + 128) * 4


def test_a_prefill_that_does_not_fit_is_told_and_the_step_is_measured_nevertheless(model):
    """Over a cache of random numbers of the same shapes; another error is no figure."""

    def full(_, __, kwargs) -> None:
        if kwargs["input_ids"].shape[1] > 2:
            raise torch.OutOfMemoryError(ASKED)

    with pytest.MonkeyPatch.context() as patch:
        handle = model.model.register_forward_pre_hook(full, with_kwargs=True)
        (row,) = measure(model, [40], [Way(PLAIN, None)], 2)
        (ours,) = measure(model, [40], [FP8], 2)
        handle.remove()
        patch.setattr(model, "forward", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(measure(model, [40], [FP8], 2))
    assert row.prefill.failure == "CUDA out of memory. Tried to allocate 256.00 GiB"
    assert row.prefill.milliseconds is None
    assert row.is_filled
    assert row.decode.milliseconds > 0
    assert ours.decode.failure == "no cache"


def test_compiled_steps_are_one_of_the_ways(model, monkeypatch):
    """They go over the same cache, compiled with CUDA graphs in mind; here by a compiler that fuses nothing."""
    options = {}

    def remembered(function, **given):
        options.update(given)
        return function

    monkeypatch.setattr(torch, "compile", remembered)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    (row,) = measure(model, [40], [COMPILED], 2)
    assert options == {"mode": "reduce-overhead", "fullgraph": True}
    assert row.decode.milliseconds > 0


def test_there_are_twenty_prompts_of_different_lengths():
    """From this project's own files."""
    found = agreement.prompts(160, 320)
    assert len({tuple(it) for it in found}) == 20
    assert sorted(map(len, found)) == [len(it) for it in found]
    assert (len(found[0]), len(found[-1])) == (160, 320)


def test_the_command_writes_what_it_found(tmp_path, monkeypatch, capsys):
    """As data and as tables, and shows it again; a context that does not fit the model is a sentence."""
    monkeypatch.setattr(models, "SMALL", {**models.SMALL, **SIZES})
    monkeypatch.setattr(agreement, "PROMPTS", 2)
    monkeypatch.setattr(agreement, "ELSEWHERE", (140, 150, 3))
    data, tables = tmp_path / "found.json", tmp_path / "found.md"
    given = ["--contexts", "40", "--repeats", "2", "--json", str(data), "--markdown", str(tables)]
    assert main(["transformers", *given]) == 0
    record = TransformersRecord.model_validate_json(data.read_text())
    assert [it.way for it in record.agreement] == ["dsa, model's dtype", "dsa, fp8"]
    assert record.agreement[0].same == 1.0
    assert record.agreement[0].first_divergences == [None, None]
    assert tables.read_text() == page(record)
    capsys.readouterr()
    assert main(["transformers", "--read", str(data)]) == 0
    assert capsys.readouterr().out.strip() == page(record).strip()
    marked = tmp_path / "page.md"
    marked.write_text(f"# A page\n\n{BEGIN}\nold\n{END}\n\nMore.\n")
    for _ in range(2):
        assert main(["transformers", "--read", str(data), "--markdown", str(marked)]) == 0
        before, rest = marked.read_text().split(BEGIN)
        tables_alone, after = rest.split(END)
        assert (before, after) == ("# A page\n\n", "\n\nMore.\n")
        assert tables_alone.strip() == page(record).removeprefix("# transformers").strip()
    assert main(["transformers", "--contexts", "999999"]) == 2
    assert "--contexts 999999: 2 to" in capsys.readouterr().err
    assert main(["transformers", "--read", str(tables)]) == 2


def test_a_table_says_what_does_not_fit():
    """Both in its place and in words, with the size of what plain transformers would have had to make."""
    row = {"tokens": 32768, "way": PLAIN, "prefill": {"failure": "out of memory"}, "decode": {"milliseconds": 2.5}}
    ours = {"tokens": 32768, "way": "dsa, fp8", "prefill": {"milliseconds": 1.0, "extra_bytes": 3 * 2**30}}
    differing = {"way": "dsa, fp8", "prompts": 2, "new_tokens": 4, "same": 0.75, "first_divergences": [None, 2]}
    about = {"device": "a GPU", "arch": "sm90", "torch": "2", "triton": None, "transformers": "5", "date": "now"}
    sizes = {"dtype": "bfloat16", "geometry": models.geometry({}, on_gpu=True), "repeats": 5, "steps": 8}
    contexts = [
        {**row, "cache_bytes": 32768 * 10, "is_filled": True},
        {**ours, "decode": {"milliseconds": 1.5, "extra_bytes": 2**19}},
    ]
    texts = [{**differing, "selected_in_common": 0.5, "largest_logit_difference": 0.25}]
    record = TransformersRecord.model_validate({**about, **sizes, "contexts": contexts, "agreement": texts})
    text = page(record)
    assert "| 32768 | plain transformers | - | does not fit | (2.5) |  | 10 |" in text
    assert "| 32768 | dsa, fp8 | 1.0 | 3.00 GiB | 1.5 | 0.5 MiB |  |" in text
    assert "prefill of 32768 tokens: out of memory; one tensor of scores would be 256 GiB" in text
    assert "| dsa, fp8 | 75.00% of 8 | 1 of 2 | token 2 | 50.00% | 0.25 |" in text


def test_the_page_has_what_the_record_says():
    """The tables in docs/transformers.md are those of the committed record, and there are none without one."""
    text, record = PAGE.read_text(), ROOT / "benchmarks/results/h100/transformers.json"
    if record.exists():
        found = TransformersRecord.model_validate_json(record.read_text())
        assert text == written(text, found), f"python -m benchmarks transformers --read {record} --markdown {PAGE}"
    else:
        assert text.split(BEGIN)[1].split(END)[0].strip() == ""
