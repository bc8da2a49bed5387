"""The commands in this process: what each prints, and how it exits."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from dsa_config import BadValues, DeprecatedName, settings
from dsa_config.cli import app
from dsa_config.flags import FlagsExtraMissing
from dsa_config.tools import printing, readers
from dsa_config.tools.completion import setting_names

pytestmark = pytest.mark.filterwarnings(f"ignore::{DeprecatedName.__module__}.{DeprecatedName.__name__}")


@pytest.fixture
def config():
    """Runs `dsa config` with arguments; what was loaded is forgotten afterwards."""

    def run(*arguments, code=0):
        done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.stdout

    yield run
    settings.load()


def test_show_and_explain(config, tmp_path, monkeypatch):
    """As text with the files, as JSON with version and fingerprint; warnings go to standard error."""
    path = tmp_path / "x.env"
    path.write_text("SGLANG_USE_AITER=1\n")
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    monkeypatch.setattr(readers, "unread", lambda cls: frozenset(("use_aiter",)))
    assert config("show", "--dotenv", path).endswith(f"loaded: {path}\n")
    assert json.loads(config("show", "--json"))["fingerprint"] == settings.fingerprint()
    assert "no code of this version reads it" in config("explain", "use_aiter")
    assert "no code of this version reads it" not in config("explain", "fuse_topk")
    assert json.loads(config("explain", "fuse_topk", "--json"))["value"] is False


def test_bad_values_are_told_together(config, monkeypatch):
    """show raises all of them, for the command to print."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    monkeypatch.setenv("SGLANG_USE_AITER", "maybe")
    with pytest.raises(BadValues):
        config("show")


def test_check(config, tmp_path, monkeypatch):
    """Exit codes 0, 1 and 2, a summary, and JSON."""
    assert config("check") == "nothing is wrong with the environment and no files\n"
    path = tmp_path / "x.toml"
    path.write_text("fuse_topk = false\n")
    assert config("check", "--file", path) == "nothing is wrong with the environment and 1 file\n"
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    assert config("check", code=1).endswith("\n1 warning in the environment and no files\n")
    assert json.loads(config("check", "--version", "1.0", "--json", code=2))["errors"] == 1


def test_check_without_the_extra_for_flags(config, tmp_path, monkeypatch):
    """What is missing is a finding that says what to install."""

    def refuse(path, cls):
        raise FlagsExtraMissing("openfeature-sdk")

    monkeypatch.setattr("dsa_config.flags.rules.load_flags", refuse)
    assert "pip install 'dsa[flags]'" in config("check", "--flags", tmp_path / "f.json", code=2)


def test_diff(config, tmp_path):
    """Equal, different as a table or JSON, and notes."""
    path = tmp_path / "x.env"
    path.write_text("SGLANG_DSA_FUSE_TOPK=0\n")
    assert config("diff", "-", "-") == "this process and this process have the same values\n"
    assert "fuse_topk" in config("diff", "-", path, code=1)
    assert json.loads(config("diff", path, "-", "--json", code=1))["equal"] is False
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"version": "0.0.1", "settings": []}))
    assert "note: this process is of version" in config("diff", "-", old)


def test_documents(config):
    """docs, schema and sample print documents."""
    assert config("docs").startswith("# Settings of DeepSeek Sparse Attention\n")
    assert "profiles" in json.loads(config("schema"))["properties"]
    assert "flags" in json.loads(config("schema", "--flags"))["properties"]
    assert config("sample").startswith("# Settings of DeepSeek Sparse Attention, each at its default.")
    assert config("sample", "--format", "toml").startswith("#:schema ")


def test_completion():
    """Fields first; environment names once the beginning is one's; each with its description."""
    assert all(name == name.lower() for name, _ in setting_names(""))
    assert setting_names("SGLANG_NSA_FUSE") == [("SGLANG_NSA_FUSE_TOPK", setting_names("fuse_topk")[0][1])]


def test_a_terminal_keeps_its_width(monkeypatch):
    """Lines are broken for people at a terminal, and nowhere else."""
    assert printing.console().width == 1000
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "77")
    assert printing.console().width == 77


def test_a_closed_output_gets_nothing(monkeypatch):
    """As a process has it that is started with `>&-`: there is nobody to tell, and nothing fails."""
    monkeypatch.setattr("sys.stdout", None)
    assert printing.print_json({"a": 1}) is None
