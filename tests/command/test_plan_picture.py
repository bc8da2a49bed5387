"""The picture of `dsa plan`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dsa_exec
from dsa_exec.cli.plan.asked import Texts
from dsa_exec.cli.plan.picture import parts_of
from dsa_exec.cli.plan.planning import report_of

MODELS = Path(dsa_exec.__file__).parents[1] / "examples" / "plan"
V32, V4 = MODELS / "deepseek_v32.json", MODELS / "deepseek_v4_flash.json"
HIDDEN = "import sys; sys.modules['matplotlib'] = None; from dsa_exec.cli import main; main()"


@pytest.mark.parametrize(("model", "pp"), [(V32, "1"), (V32, "3"), (V4, "2")])
@pytest.mark.parametrize("fraction", [None, "1", "0.8"])
def test_parts_are_all_of_a_ranks_memory(model, pp, fraction):
    """What is stacked for each rank adds up to the device, whatever the share of weights and pools."""
    texts = Texts(model, gpu_mem="141GiB", pp=pp, weights="30GiB", mem_fraction_static=fraction)
    report = report_of(texts)
    for group in report.ranks:
        parts = parts_of(report, group)
        assert min(parts.values()) >= 0
        assert sum(parts.values()) == report.memory.gpu_bytes
        assert {pool.name for pool in group.pools} < set(parts)


@pytest.mark.parametrize(("name", "begins"), [("plan.png", b"\x89PNG"), ("plan.svg", b"<?xml"), ("Plan.PDF", b"%PDF")])
def test_a_picture_of_each_format(dsa, tmp_path, name, begins):
    """It is written, and the text ends with where; the ending says the format."""
    pytest.importorskip("matplotlib")
    file = tmp_path / name
    done = dsa("plan", "--model", str(V4), "--gpu-mem", "141GiB", "--pp", "2", "--plot", str(file))
    assert done.code == 0, done.err
    assert done.out.endswith(f"\npicture: {file}\n")
    assert file.read_bytes().startswith(begins)


def test_a_picture_beside_json(dsa, tmp_path):
    """Standard output is the document and nothing else."""
    pytest.importorskip("matplotlib")
    file = tmp_path / "plan.png"
    done = dsa("plan", "--model", str(V32), "--gpu-mem", "141GiB", "--json", "--plot", str(file))
    assert done.json["tokens"] > 0
    assert file.stat().st_size > 10_000


def test_a_picture_that_cannot_be_written(dsa, tmp_path):
    """The system's answer with the file, and exit code 1, as for any output."""
    pytest.importorskip("matplotlib")
    file = tmp_path / "plan.png"
    file.symlink_to("/dev/full")
    done = dsa("plan", "--model", str(V32), "--gpu-mem", "141GiB", "--plot", str(file))
    assert (done.code, done.out) == (1, "")
    assert done.err == f"dsa: {file}: No space left on device\n"


def test_files_that_are_no_picture(dsa, expect_sentence, tmp_path):
    """A folder, an ending of no format and a folder that is not there are told before anything is planned."""
    base = ["plan", "--model", "nowhere", "--gpu-mem", "141GiB", "--plot"]
    expect_sentence(dsa(*base, str(tmp_path)), f"--plot {tmp_path}: is a folder; wanted a file")
    for name in ("plan", "plan.txt", ".png"):
        expect_sentence(
            dsa(*base, str(tmp_path / name)), "is no picture's name; wanted one that ends in .png, .svg, .pdf"
        )
    expect_sentence(dsa(*base, str(tmp_path / "no" / "plan.png")), f"there is no folder {tmp_path / 'no'}")


def test_without_matplotlib(tmp_path):
    """One sentence with how to install it, and no output; without --plot nobody misses it."""
    arguments = ["plan", "--model", str(V32), "--gpu-mem", "141GiB"]
    command = [sys.executable, "-c", HIDDEN, *arguments]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (plain.returncode, plain.stderr) == (0, "")
    file = tmp_path / "plan.png"
    done = subprocess.run([*command, "--plot", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"dsa: --plot {file}: needs matplotlib: pip install 'dsa[plot]'\n"
    assert not file.exists()


def test_a_matplotlib_that_is_broken(dsa, expect_sentence, tmp_path):
    """What its import raises, in a sentence."""
    (tmp_path / "matplotlib.py").write_text("raise OSError('libfreetype.so: cannot open\\nand more')\n")
    arguments = ["--model", str(V32), "--gpu-mem", "141GiB", "--plot", str(tmp_path / "plan.png")]
    done = dsa("plan", *arguments, PYTHONPATH=str(tmp_path))
    expect_sentence(done, "matplotlib cannot be imported: OSError: libfreetype.so: cannot open")
