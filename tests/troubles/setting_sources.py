"""Files of settings and flags that are refused."""

from __future__ import annotations

import contextlib
import sys

from dsa_config import settings
from dsa_exec.cli import app
from troubles import produces


@produces("SourceError")
def a_file_that_is_missing(settings_load):
    settings_load(file="dsa.toml")


@produces("SourceError")
def an_unknown_key(settings_load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dsa.toml").write_text("fuse_top_k = false\n")
    settings_load(file="dsa.toml")


@produces("SourceError")
def a_profile_that_is_missing(settings_load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dsa.toml").write_text("[profiles.h100]\nfuse_topk = true\n")
    settings_load(file="dsa.toml", profile="h200")


@produces("SourceError")
def yaml_without_its_extra(settings_load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "dsa.yaml").write_text("fuse_topk: true\n")
    settings_load(file="dsa.yaml")


@produces("FlagFileError")
def a_bad_flag(settings_load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flag = '{"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "off"}'
    (tmp_path / "flags.json").write_text(f'{{"flags": {{"fuse_topk": {flag}}}}}')
    settings_load(flags="flags.json")


@produces("BadContext")
def a_context_that_is_no_text():
    with settings.flag_context(rank={1, 2}):
        pass


@produces("FlagsExtraMissing")
def flags_without_their_extra(settings_load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "openfeature.contrib.tools.flagd.core", None)
    flag = '{"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"}'
    (tmp_path / "flags.json").write_text(f'{{"flags": {{"fuse_topk": {flag}}}}}')
    settings_load(flags="flags.json")


def migrated(capsys, *arguments):
    """What `dsa config migrate` says of files."""
    with contextlib.suppress(SystemExit):
        app(["config", "migrate", *arguments])
    return capsys.readouterr().err


@produces("Unparsable")
def yaml_that_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pod.yaml").write_text("a: [1\nSGLANG_NSA_FUSE_TOPK: 1\n")
    return migrated(capsys, "pod.yaml")


@produces("NotReplaceable")
def a_file_with_two_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("SGLANG_NSA_FUSE_TOPK=1\n")
    (tmp_path / "second").hardlink_to(tmp_path / ".env")
    return migrated(capsys, "--write", ".env")


@produces("ExtraMissing")
def migration_without_its_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "libcst", None)
    (tmp_path / "serve.py").write_text("import os\nos.environ['SGLANG_NSA_FUSE_TOPK'] = '1'\n")
    return migrated(capsys, "serve.py")
