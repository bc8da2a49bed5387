"""`dsa doctor`: what this machine has, what would run each op, and what is wrong."""

from __future__ import annotations

import functools
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import dsa_exec
from dsa_exec.dispatch.registry import op_names

SCHEMA = Path(dsa_exec.__file__).parents[1] / "schemas" / "doctor.schema.json"
PROGRAM = "from dsa_exec.cli import main; main()"


@pytest.fixture(scope="module")
def doctor(dsa):
    """Runs the command once for each set of arguments and variables of this file, and remembers what it did."""

    @functools.cache
    def run(*arguments: str, **environment: str) -> Any:
        where = [] if "--device" in arguments else ["--device", "cpu"]
        return dsa("doctor", *where, *arguments, **environment)

    return run


def check_document(done: Any) -> dict[str, Any]:
    """Standard output is one JSON document that the committed schema describes, and standard error is empty."""
    assert done.err == ""
    document: dict[str, Any] = done.json
    Draft202012Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(document)
    return document


def test_a_healthy_machine(doctor):
    """Exit code 0, tables with every op and every library, and the last line says that nothing is wrong."""
    done = doctor()
    assert (done.code, done.err) == (0, "")
    for name in (*op_names(), "deep_gemm", "flash_mla", "aiter"):
        assert f"\n{name} " in done.out
    assert done.out.endswith("\nnothing is wrong\n")
    assert "\x1b" not in done.out  # no colour where it is no terminal


def test_what_is_wrong_with_the_settings(doctor):
    """Bad values, sources and names are told, exit code 2, and the rest is there; JSON by its schema, and no more.

    Bytes that are no UTF-8, for which JSON has no word, are escaped.
    """
    wrong = {
        "SGLANG_DSA_KV_FORMAT": "caf\udce9",
        "SGLANG_NSA_FUSE_TOPK": "0",
        "SGLANG_DSA_CONFIG": "",
    }
    done = doctor("--json", **wrong)
    document = check_document(done)
    assert done.code == 2
    kinds = [(it["severity"], it["kind"], it["name"]) for it in document["troubles"]]
    assert ("error", "bad-value", "SGLANG_DSA_KV_FORMAT") in kinds
    assert ("error", "unusable-source", "environment variable SGLANG_DSA_CONFIG") in kinds
    assert ("warning", "deprecated-name", "SGLANG_NSA_FUSE_TOPK") in kinds
    assert [op["op"] for op in document["ops"]] == list(op_names())
    assert all(op["calls"] for op in document["ops"])


def test_sizes_and_other_hardware(doctor):
    """The options reach the calls; the machine is told as it is."""
    sizes = "--heads 12 --index-heads 48 --next-n 3 --batch 5 --rows 7 --context 999".split()
    document = check_document(doctor("--json", "--assume", "sm90", *sizes, TRITON_INTERPRET="0"))
    assert document["assumed"] == {"arch": "sm90", "is_hip": False, "multiprocessors": 132}
    assert document["machine"]["arch"] == "cpu"
    assert document["sizes"] == {
        "heads": [12],
        "index_heads": 48,
        "next_n": [3],
        "batch": 5,
        "rows": 7,
        "context": 999,
    }
    (paged,) = (it for it in document["ops"] if it["op"] == "paged_mqa_logits")
    assert paged["calls"][0]["work"] == ["verify (next_n=3)"]


def test_a_call_that_would_fail_on_other_hardware(doctor):
    """What follows from assumed hardware is said to; a named backend that it has no kernel for is an error."""
    wrong = {"SGLANG_DSA_TOPK_BACKEND": "gluon", "SGLANG_NSA_FUSE_TOPK": "0"}
    done = doctor("--assume", "gfx942", TRITON_INTERPRET="0", **wrong)
    assert (done.code, done.err) == (2, "")
    assert "What follows is for assumed hardware, not for this machine: gfx942 with 304 multiprocessors" in done.out
    assert "  no   use_aiter: off; wanted on (SGLANG_USE_AITER=1)\n" in done.out
    assert "topk: gluon: arch=gfx942: this kernel is written for sm90 (chosen by topk_backend=gluon)" in done.out
    assert done.out.endswith("\n1 error, 1 warning\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cuda:99"], "--device cuda:99: "),
        (["--assume", "hopper"], "--assume hopper: is no architecture; wanted one such as sm90"),
    ],
)
def test_a_device_or_architecture_that_is_none(doctor, expect_sentence, arguments, words):
    """One sentence with what was given, and nothing on standard output."""
    expect_sentence(doctor(*arguments, "--json"), words)


def test_without_a_torch_that_can_be_imported(doctor, expect_sentence, tmp_path):
    """A sentence with the reason: there is nothing to say of what it would run."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot open')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    expect_sentence(doctor(PYTHONPATH=path), "torch cannot be imported: OSError: libcudart.so: cannot open")


@pytest.mark.parametrize("option", ["--heads", "--index-heads", "--next-n", "--batch", "--rows", "--context"])
def test_sizes_below_one(doctor, option):
    """A size is refused with the option's name."""
    done = doctor(option, "0")
    assert done.code == 2
    assert f"'{option}'" in done.err


def test_the_help_page_has_every_option_and_the_exit_codes(doctor):
    """And what is looked at."""
    out = doctor("--help").out
    for option in ("device", "assume", "heads", "index-heads", "next-n", "batch", "rows", "context", "json"):
        assert f"--{option} " in out
    words = " ".join(out.split())
    assert "Exits with 0 when nothing is wrong, 1 when there are warnings only, 2 when there are errors" in words


LIBRARY = """
import os, sys
print("hello from a library")
os.write(1, b"hello from its C code\\n")
"""


def test_what_libraries_print_does_not_reach_the_output(doctor, tmp_path):
    """Python's print and a write of C code go to standard error while a library is imported; that it fails is told.

    Warnings alone are exit code 1, as with `dsa config check`.
    """
    (tmp_path / "aiter.py").write_text(LIBRARY + "raise OSError('libamdhip64.so: cannot open')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = doctor("--json", PYTHONPATH=path)
    document = done.json
    assert done.code == 1
    assert sorted(done.err.split("\n")) == ["", "hello from a library", "hello from its C code"]
    (warning,) = document["troubles"]
    assert warning["message"] == "aiter is installed, and its import fails: OSError: libamdhip64.so: cannot open"
    assert [it["reason"] for it in document["libraries"] if it["name"] == "aiter"] == [warning["message"]]


@pytest.mark.skipif(sys.platform != "linux", reason="the environment of C is looked at on Linux alone")
def test_a_variable_that_a_library_sets_through_c(doctor, tmp_path):
    """Python does not see it, others do: a warning with both values."""
    lines = "import ctypes\nctypes.CDLL(None).setenv(b'SGLANG_USE_AITER', b'1', 1)\n"
    (tmp_path / "flash_mla.py").write_text(lines)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = doctor("--json", PYTHONPATH=path)
    document = check_document(done)
    assert done.code == 1
    assert document["c_environment"]["differences"] == [
        {"name": "SGLANG_USE_AITER", "setting": "use_aiter", "in_python": None, "in_c": "1"}
    ]


def test_streams_that_do_not_work():
    """An output that is full, closed, or closed early is no traceback; a closed standard error is no hindrance."""
    redirections = ("> /dev/full", "| head -c 1", ">&-", "2>&-")
    running = [
        subprocess.Popen(
            ["bash", "-c", f"{shlex.quote(sys.executable)} -c '{PROGRAM}' doctor --json {redirection}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for redirection in redirections
    ]
    told = {how: (*it.communicate(timeout=300), it.returncode) for how, it in zip(redirections, running, strict=True)}
    assert not [how for how, (_, err, _) in told.items() if "Traceback" in err]
    assert told["> /dev/full"] == ("", "dsa: cannot write the output: No space left on device\n", 1)
    assert told["| head -c 1"][0] == "{"
    assert told[">&-"] == ("", "", 0)
    assert json.loads(told["2>&-"][0])["errors"] == 0


def test_on_a_narrow_terminal():
    """Tables are broken to its width."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "50", "NO_COLOR": "1"}
    command = [sys.executable, "-c", PROGRAM, "doctor"]
    running = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    out = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        out += part
    running.wait(timeout=60)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.decode()).replace("\r\n", "\n")
    table = text[text.index("\nop ") : text.index("\npages of a new")]
    assert max(map(len, table.splitlines())) <= 50
    assert "nothing is wrong" in text


def test_interrupted():
    """Ctrl-C ends the command with 130 and a word: while torch is imported, which is where most of its time goes."""
    # What runs in the background of a script inherits that Ctrl-C is ignored.
    sends = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "when = lambda name, *_: os.kill(os.getpid(), signal.SIGINT) if name == 'torch.nn' else None; "
        "sys.meta_path.insert(0, type('Interrupting', (), {'find_spec': staticmethod(when)}))"
    )
    program = PROGRAM.replace("main()", f"{sends}; main()")
    done = subprocess.run([sys.executable, "-c", program, "doctor"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip().endswith("dsa: interrupted")
    assert "Traceback" not in done.stderr
