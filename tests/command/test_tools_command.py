"""`dsa config check`, `diff`, `docs`, `sample`, `schema`, the options for sources, and completion."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import dsa_config

ROOT = Path(dsa_config.__file__).parents[1]


def test_check_exits_by_severity(dsa):
    """0 for nothing, 1 for warnings, 2 for errors; a line of summary, and no traceback."""
    clean = dsa("config", "check")
    assert (clean.code, clean.out, clean.err) == (0, "nothing is wrong with the environment and no files\n", "")
    warned = dsa("config", "check", SGLANG_NSA_FUSE_TOPK="0")
    assert warned.code == 1
    assert "use SGLANG_DSA_FUSE_TOPK" in warned.out
    assert warned.out.endswith("1 warning in the environment and no files\n")
    bad = dsa("config", "check", SGLANG_NSA_FUSE_TOPK="0", SGLANG_DSA_FUSE_TOPK="maybe", SGLANG_USE_AITER="x")
    assert bad.code == 2
    assert bad.out.count("error: ") == 3
    assert "3 errors, 1 warning in" in bad.out
    assert bad.err == ""


def test_check_as_json(dsa, tmp_path):
    """Counts, files and findings, each with all its parts."""
    path = tmp_path / "x.env"
    path.write_text("\nSGLANG_DSA_FUSE_TPOK=1\n")
    done = dsa("config", "check", "--json", "--dotenv", path)
    assert done.code == 1
    assert (done.json["errors"], done.json["warnings"], done.json["files"]) == (0, 1, [str(path)])
    (finding,) = done.json["findings"]
    assert finding == {
        "severity": "warning",
        "kind": "unknown-name",
        "name": "SGLANG_DSA_FUSE_TPOK",
        "setting": "fuse_topk",
        "origin": f"{path}:2",
        "message": "SGLANG_DSA_FUSE_TPOK is no name of a setting, and has no effect",
        "suggestion": "did you mean SGLANG_DSA_FUSE_TOPK?",
    }


def test_check_for_another_version_and_strictly(dsa):
    """`--version` asks as of that version; the switches make errors of warnings."""
    assert dsa("config", "check", "--version", "1.0", SGLANG_NSA_FUSE_TOPK="0").code == 2
    assert dsa("config", "check", SGLANG_NSA_FUSE_TOPK="0", SGLANG_DSA_FATAL_DEPRECATIONS="1").code == 2


@pytest.fixture
def sources(tmp_path):
    """Options for one of each kind of source, and what each sets."""
    (tmp_path / "x.toml").write_text('[profiles.p]\nkv_format = "model"\n')
    (tmp_path / "x.env").write_text("SGLANG_DSA_FUSE_TOPK=0\n")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "SGLANG_DSA_TOPK_BACKEND").write_text("torch")
    flag = {"state": "ENABLED", "variants": {"on": True}, "defaultVariant": "on"}
    (tmp_path / "f.json").write_text(json.dumps({"flags": {"debug_check_indices": flag}}))
    return [
        *("--file", tmp_path / "x.toml", "--profile", "p", "--dotenv", tmp_path / "x.env"),
        *("--secrets-dir", tmp_path / "s", "--flags", tmp_path / "f.json"),
    ]


def test_options_for_sources(dsa, sources, tmp_path):
    """show, explain and check load what they are told; show lists the files."""
    shown = dsa("config", "show", "--json", "--changed", *sources).json
    assert {row["name"]: row["source"] for row in shown["settings"]} == {
        "fuse_topk": "dotenv",
        "kv_format": "file",
        "topk_backend": "secrets",
        "debug_check_indices": "flag",
    }
    files = [str(tmp_path / name) for name in ("x.env", "s", "x.toml", "f.json")]
    assert (shown["files"], shown["changed_only"], shown["version"]) == (files, True, dsa_config.__version__)
    assert len(shown["fingerprint"]) == 64
    assert f"loaded: {files[2]}" in dsa("config", "show", *sources).out
    assert dsa("config", "explain", "kv_format", "--json", *sources).json["source"] == "file"
    checked = dsa("config", "check", "--json", *sources)
    assert (checked.code, checked.json["files"]) == (0, files)


@pytest.mark.parametrize("option", ["--file", "--dotenv", "--secrets-dir", "--flags"])
def test_a_source_that_is_not_there(dsa, option, tmp_path):
    """Exit 2 and a sentence for show; a finding for check."""
    done = dsa("config", "show", option, tmp_path / "none.toml")
    assert (done.code, done.out) == (2, "")
    assert "none.toml" in done.err
    assert "Traceback" not in done.err
    assert dsa("config", "check", option, tmp_path / "none.toml").code == 2


def test_every_setting_is_read(dsa):
    """Of this project no setting is declared that no code reads: `show` marks none, and `explain` says it of none."""
    assert "no code" not in dsa("config", "show").out
    for name in ("use_aiter", "fuse_topk", "use_fused_metadata_copy"):
        assert "no code of this version reads it" not in dsa("config", "explain", name).out


def test_diff_of_two_runs(dsa, tmp_path):
    """Equal is 0, different is 1 with a table or JSON, unreadable is 2 and a sentence."""
    for name, text in (("a", "1"), ("b", "0")):
        (tmp_path / name).write_text(dsa("config", "show", "--json", SGLANG_DSA_FUSE_TOPK=text).out)
    a, b = tmp_path / "a", tmp_path / "b"
    same = dsa("config", "diff", a, "-")
    assert (same.code, same.out) == (0, f"{a} and this process have the same values\n")
    other = dsa("config", "diff", a, b)
    assert other.code == 1
    assert other.out.splitlines()[1].split()[:2] == ["fuse_topk", "true"]
    as_json = dsa("config", "diff", a, b, "--json")
    assert (as_json.code, as_json.json["equal"], as_json.json["differences"][0]["a"]["value"]) == (1, False, True)
    document = json.loads(a.read_text())
    a.write_text(json.dumps({**document, "version": "0.0.1"}))
    assert "note: " in dsa("config", "diff", a, "-").out
    broken = dsa("config", "diff", a, tmp_path / "none")
    assert (broken.code, broken.out) == (2, "")
    assert "Traceback" not in broken.err


def test_generated_documents_are_printed(dsa):
    """docs and schemas print what is committed; samples are of both kinds."""
    assert dsa("config", "docs").out == (ROOT / "docs/reference/settings.md").read_text()
    assert dsa("config", "docs", "--format", "html").code == 2
    assert dsa("config", "schema").json == json.loads((ROOT / "schemas/settings.schema.json").read_text())
    assert dsa("config", "schema", "--flags").json == json.loads((ROOT / "schemas/flags.schema.json").read_text())
    assert "#SGLANG_DSA_FUSE_TOPK=1" in dsa("config", "sample").out
    assert tomllib.loads(dsa("config", "sample", "--format", "toml").out) == {"$schema": "./settings.schema.json"}
    sample = dsa("config", "sample", "--format", "toml").out
    assert "#use_aiter = false" in sample
    assert dsa("config", "sample", "--format", "toml", "--all").out == sample  # every setting is read by some code


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dsa config explain mqa_logits_f", ["mqa_logits_free_mem_fraction"]),
        ("dsa config explain SGLANG_NSA_F", ["SGLANG_NSA_FUSE_TOPK"]),
        ("dsa config explain zzz", []),
        ("dsa config che", ["check"]),
    ],
)
def test_completion_of_names(dsa, typed, offered):
    """The shell is offered the names that begin with what was typed."""
    words = typed.split()
    done = dsa(_DSA_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1))
    assert done.out.split() == offered


def test_completion_before_anything_is_typed(dsa):
    """All fields are offered, and no environment names."""
    done = dsa(_DSA_COMPLETE="complete_bash", COMP_WORDS="dsa config explain ", COMP_CWORD="3")
    assert done.out.split() == list(dsa_config.DSASettings.model_fields)


def test_completion_can_be_shown(dsa):
    """The script that a shell is to source."""
    done = dsa("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.code == 0
    assert "_DSA_COMPLETE=complete_bash" in done.out


@pytest.mark.parametrize("command", ["check", "diff", "docs", "sample", "schema"])
def test_help_of_each_tool(dsa, command):
    """Each command has a page."""
    done = dsa("config", command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"Usage: dsa config {command} [OPTIONS]" in done.out
