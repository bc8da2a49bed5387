"""`dsa config show` and `dsa config explain`."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

import dsa_config
from dsa_config import DSASettings


def test_explain_a_deprecated_name(dsa):
    """The value, its source, the deprecated name and the warning; exit 0."""
    done = dsa("config", "explain", "fuse_topk", "--json", SGLANG_NSA_FUSE_TOPK="0")
    assert done.code == 0
    answer = done.json
    assert set(answer) == {"name", "value", "source", "origin", "layers", "warnings", "conflict"}
    assert (answer["name"], answer["value"], answer["source"]) == ("fuse_topk", False, "environment")
    assert "SGLANG_NSA_FUSE_TOPK" in answer["origin"]
    assert "SGLANG_NSA_FUSE_TOPK is deprecated" in answer["warnings"][0]
    assert answer["conflict"] is None
    assert [layer["source"] for layer in answer["layers"]] == ["environment", "default"]
    assert done.err == f"warning: {answer['warnings'][0]}\n"


def test_explain_a_conflict(dsa):
    """Canonical wins, both names and texts are reported, and it is still exit 0."""
    done = dsa(
        "config", "explain", "SGLANG_NSA_FUSE_TOPK", "--json", SGLANG_NSA_FUSE_TOPK="0", SGLANG_DSA_FUSE_TOPK="yes"
    )
    assert done.code == 0
    assert done.json["value"] is True
    assert done.json["conflict"] == {"SGLANG_DSA_FUSE_TOPK": "yes", "SGLANG_NSA_FUSE_TOPK": "0"}
    assert "different text" in done.err


def test_explain_as_text(dsa):
    """Value, description, what it takes, its names and every layer, for people."""
    done = dsa("config", "explain", "mqa_logits_free_mem_fraction", SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION="0.1")
    assert done.code == 0
    for part in (
        "mqa_logits_free_mem_fraction = 0.1, from environment variable SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION",
        "The share of free memory",
        "takes a finite number, 0 < x <= 1; default 0.2",
        "wins  environment: '0.1'",
        "loses default: 0.2",
    ):
        assert part in done.out


def test_show_lists_every_setting(dsa):
    """All of them as text and as JSON, or only those that are not at their default."""
    assert dsa("config", "show").out.splitlines()[1].split() == ["fuse_topk", "True", "default"]
    rows = dsa("config", "show", "--json").json["settings"]
    assert [row["name"] for row in rows] == list(DSASettings.model_fields)
    assert dsa("config", "show", "--changed").out == "all settings are at their defaults\n"
    assert dsa("--version").out == f"{dsa_config.__version__}\n"
    changed = dsa("config", "show", "--changed", "--json", SGLANG_USE_AITER="1").json["settings"]
    assert changed == [
        {
            "name": "use_aiter",
            "value": True,
            "source": "environment",
            "origin": "environment variable SGLANG_USE_AITER",
        }
    ]


@pytest.mark.parametrize("command", [["config", "show"], ["config", "explain", "fuse_topk"], ["run"]])
def test_a_bad_value_is_one_sentence(dsa, expect_sentence, command):
    """Variable, text, origin and accepted words; exit 2; no traceback."""
    done = dsa(*command, SGLANG_DSA_FUSE_TOPK="maybe")
    expect_sentence(done, "SGLANG_DSA_FUSE_TOPK='maybe'", "environment variable", "1/0, true/false, yes/no")


@pytest.mark.parametrize("text", ["nan", "inf", "0", "-1", "1.5", "abc"])
def test_a_bad_fraction_is_one_sentence(dsa, expect_sentence, text):
    """Whatever is wrong with it: the variable, the text, and the range."""
    done = dsa("config", "show", SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION=text)
    expect_sentence(done, f"SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION='{text}'", "a finite number, 0 < x <= 1")


def test_all_bad_values_are_told_at_once(dsa):
    """Two bad variables are two lines of one error."""
    done = dsa("config", "show", SGLANG_DSA_FUSE_TOPK="maybe", SGLANG_USE_AITER="")
    assert done.code == 2
    assert "2 settings" in done.err
    assert "SGLANG_DSA_FUSE_TOPK='maybe'" in done.err
    assert "SGLANG_USE_AITER=''" in done.err


def test_an_unknown_setting_is_told_the_nearest(dsa, expect_sentence):
    """A slip in the name is answered with what it might have been."""
    expect_sentence(dsa("config", "explain", "fuse_tpok"), "did you mean fuse_topk")


@pytest.mark.parametrize("arguments", [["--nonsense"], ["config", "explain"], ["config", "explan", "x"]])
def test_wrong_usage_exits_with_2(dsa, arguments):
    """A wrong flag, a missing argument, an unknown command: usage on standard error."""
    done = dsa(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "Usage: dsa" in done.err


@pytest.mark.parametrize("command", [[], ["config"], ["config", "explain"], ["config", "show"], ["run"]])
def test_help_pages(dsa, command):
    """Each command has a page that says what it is for and how it is called."""
    done = dsa(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"Usage: {' '.join(['dsa', *command])} [OPTIONS]" in done.out


def test_a_reader_that_goes_away(dsa):
    """A broken pipe ends the command without a traceback."""
    program = "from dsa_exec.cli import main; main()"
    script = f"{shlex.quote(sys.executable)} -c '{program}' config show --json | head -c 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr


def test_json_is_not_mixed_with_anything(dsa):
    """A deprecated variable's warning goes to standard error, where JSON is on standard output."""
    done = dsa("config", "show", "--json", SGLANG_NSA_FUSE_TOPK="0")
    assert json.loads(done.out)["settings"][0]["value"] is False
    assert done.err.startswith("warning: SGLANG_NSA_FUSE_TOPK")
