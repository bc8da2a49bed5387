"""The picture of docs/fused-select.md has the figures of the kernel, and its text keeps within it."""

from __future__ import annotations

import math
import re
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import dsa_exec

DOCS = Path(dsa_exec.__file__).parents[1] / "docs"
PICTURE = (DOCS / "pictures" / "fused-select.svg").read_text("utf-8")


@pytest.fixture
def script(monkeypatch) -> dict[str, object]:
    """What the script that draws it knows."""
    monkeypatch.syspath_prepend(DOCS / "scripts")
    names = runpy.run_path(str(DOCS / "scripts" / "fused_select.py"))
    monkeypatch.delitem(sys.modules, "dataflow")
    return names


def test_its_sizes_are_those_of_the_kernel(script):
    """Keys of a slot and of a span, what is kept beside the best, words between rows of scores, the columns."""
    pytest.importorskip("triton.experimental.gluon")
    from dsa_exec.core.kernels import hopper_indexer
    from dsa_exec.ops.index_select.kernels import hopper, hopper_candidates, hopper_ptx

    assert script["SLOT"] == hopper_indexer.SLOT.value
    assert script["SPAN"] == hopper.SPAN.value
    assert script["OTHERS"] == hopper_candidates.OTHERS.value
    assert script["PAD"] == hopper_ptx.PAD
    assert script["ROWS"] * script["HEADS"] == 2 * hopper_indexer.COLUMNS.value


def test_its_figures_are_told(script):
    """Room for candidates, when a row is full, how soon again at the worst, and the bytes of both ways."""
    launch = script["LAUNCH"]
    assert f"{launch.capacity} x 8 bytes a row" in PICTURE
    assert f"full: {launch.capacity - 256}<" in PICTURE
    assert f"anew after {launch.capacity - 256 - (2048 + 256)} keys" in PICTURE
    assert f"at most: {launch.programs * 4 * launch.capacity * 8 / 2**20:.4g} MiB" in PICTURE
    assert "4096 x 65536 x 4 bytes" in PICTURE
    assert "= 1 GiB" in PICTURE
    page = (DOCS / "fused-select.md").read_text("utf-8")
    candidates, most = script["CANDIDATE_BYTES"] / 2**20, script["MOST_CANDIDATE_BYTES"] / 2**20
    assert f"{candidates:.4g} MiB for 4096 rows and {most:.4g} MiB for a prefill of any length" in page
    assert f"by gluon: {candidates:.4g} MiB" in PICTURE


def test_a_guess_halves_what_is_left_often_enough():
    """Each fourth in the middle of at most 2**32 numbers: so many guesses, whatever the scores are."""
    width, guesses = 2**32 - 1, 0
    while width > 1:
        guesses += 1
        width = math.ceil(width / 2) if guesses % 4 == 0 else width - 1
    assert guesses <= 128
    assert "128 guesses at most" in PICTURE


def test_no_text_is_cut_off_at_an_edge():
    """Every line of text lies within the picture, in a font as wide as DejaVu Sans."""
    width, height = (int(size) for size in re.search(r'viewBox="0 0 (\d+) (\d+)"', PICTURE).groups())
    widths = {"small": 6.9, "kind": 8.8, "name": 9.6, "op": 9.1}
    texts = list(ElementTree.fromstring(PICTURE).iter("{http://www.w3.org/2000/svg}text"))
    assert texts
    for text in texts:
        length = len(text.text) * widths[text.get("class")]
        share = {"middle": 0.5, "end": 1.0}.get(text.get("text-anchor"), 0.0)
        left = float(text.get("x")) - share * length
        assert 0 <= left <= left + length <= width, text.text
        assert 15 <= float(text.get("y")) <= height - 5, text.text
