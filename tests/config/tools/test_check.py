"""`check`: every problem of every source in one pass, with the place and what to do."""

from __future__ import annotations

import os
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, field_validator, model_validator
from pydantic_settings import PydanticBaseSettingsSource, SettingsConfigDict

from dsa_config import BadValue, DSASettings, LiveSettings, Merged, Removed, Renamed, inverted, live, setting
from dsa_config.controls import control_variables
from dsa_config.declared import settings_of
from dsa_config.tools.check import check
from dsa_config.tools.findings import exit_code


class Engine(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="TOOL_")
    project_version = "2.0"
    removed_names = (Removed("TOOL_GONE", "1.5", "TOOL_CHUNK does it"),)

    chunk: int = setting(
        8, ge=1, deprecated_names=[Renamed("OLD_CHUNK", "1.0", "3.0"), Renamed("OLDER_CHUNK", "0.5", "2.0")]
    )
    quiet: bool = setting(True, deprecated_names=[inverted("TOOL_LOUD", since="1.0", remove_in="3.0", error_in="2.0")])
    high: int = setting(9, introduced="2.5")
    key: SecretStr = setting(SecretStr("none"))
    pair: int = setting(
        0, deprecated_names=[Merged(("LEFT", "RIGHT"), "1.0", "3.0", (int, int), lambda a, b: (a or 0) + (b or 0))]
    )
    odd: int = setting(1)

    @field_validator("odd")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise RuntimeError("even")
        return value

    @field_validator("key")
    @classmethod
    def _key(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() == "hunter2":
            raise RuntimeError("hunter2 is bad")
        return value

    @model_validator(mode="after")
    def _together(self) -> Engine:
        if self.chunk == 13 and not self.pair:
            raise ValueError("chunk 13 needs a pair")
        if self.chunk == 666:
            raise RuntimeError("no")
        return self


def kinds(**sources):
    return [(it.severity, it.kind, it.name) for it in check(Engine, **sources)]


def test_nothing_is_wrong(monkeypatch):
    """Defaults and good values under today's names are no findings, and the code is 0."""
    assert check(DSASettings) == ()
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    assert check(DSASettings) == ()
    assert exit_code(()) == 0


def test_a_bad_value_has_its_variable_its_reason_and_what_is_allowed(monkeypatch):
    """One error with everything needed to mend it, and it does not hide the next one."""
    monkeypatch.setenv("TOOL_CHUNK", "0")
    monkeypatch.setenv("TOOL_QUIET", "maybe")
    first, second = check(Engine)
    assert (first.severity, first.kind, first.name, first.setting) == ("error", "bad-value", "TOOL_CHUNK", "chunk")
    assert first.origin == "environment variable TOOL_CHUNK"
    assert first.message.startswith("TOOL_CHUNK='0': ")
    assert "1 <= x" in first.suggestion
    assert second.name == "TOOL_QUIET"
    assert exit_code((first, second)) == 2


def test_phases_of_old_names(monkeypatch):
    """Deprecated warns; refused, removed and buried names are errors; each says what to use."""
    for name, text in {"OLD_CHUNK": "3", "OLDER_CHUNK": "4", "TOOL_LOUD": "1", "TOOL_GONE": "1"}.items():
        monkeypatch.setenv(name, text)
    found = {it.name: it for it in check(Engine)}
    assert {name: (it.severity, it.kind) for name, it in found.items()} == {
        "OLD_CHUNK": ("warning", "deprecated-name"),
        "OLDER_CHUNK": ("error", "removed-name"),
        "TOOL_LOUD": ("error", "removed-name"),
        "TOOL_GONE": ("error", "removed-name"),
    }
    assert found["OLD_CHUNK"].suggestion == "use TOOL_CHUNK"
    assert found["TOOL_LOUD"].suggestion == "use TOOL_QUIET=0"
    assert found["TOOL_GONE"].suggestion == "instead: TOOL_CHUNK does it"


def test_another_version_is_emulated(monkeypatch):
    """The phases are those of the version that is asked for; a version that is none is an error of its own."""
    monkeypatch.setenv("OLD_CHUNK", "3")
    assert kinds(emulate_version="3.0") == [("error", "removed-name", "OLD_CHUNK")]
    assert kinds(emulate_version="0.1") == []
    assert [kind for _, kind, _ in kinds(emulate_version="x")] == ["unusable-source", "deprecated-name"]


def test_a_name_from_the_future_has_no_effect(monkeypatch):
    """A setting that this version does not have yet is told of."""
    monkeypatch.setenv("TOOL_HIGH", "1")
    assert kinds() == [("warning", "without-effect", "TOOL_HIGH")]


def test_a_conflict_is_an_error_beside_the_deprecation(monkeypatch):
    """Both names with their texts, and the winner to keep."""
    monkeypatch.setenv("TOOL_CHUNK", "3")
    monkeypatch.setenv("OLD_CHUNK", "4")
    conflict, deprecated = check(Engine)
    assert (conflict.kind, conflict.severity, conflict.setting) == ("conflict", "error", "chunk")
    assert "TOOL_CHUNK='3', OLD_CHUNK='4'" in conflict.message
    assert conflict.suggestion == "keep TOOL_CHUNK alone"
    assert deprecated.kind == "deprecated-name"
    monkeypatch.setenv("OLD_CHUNK", "3")
    assert [kind for _, kind, _ in kinds()] == ["deprecated-name"]


def test_strict_switches(monkeypatch):
    """With fatal deprecations a deprecated name is an error; a bad switch is an error and counts as off."""
    monkeypatch.setenv("OLD_CHUNK", "3")
    monkeypatch.setenv("TOOL_FATAL_DEPRECATIONS", "1")
    assert kinds() == [("error", "deprecated-name", "OLD_CHUNK")]
    monkeypatch.setenv("TOOL_FATAL_DEPRECATIONS", "perhaps")
    monkeypatch.setenv("TOOL_CONFIG", " ")
    assert kinds() == [
        ("error", "unusable-source", "environment variable TOOL_CONFIG"),
        ("error", "unusable-source", "environment variable TOOL_FATAL_DEPRECATIONS"),
        ("warning", "deprecated-name", "OLD_CHUNK"),
    ]


def test_several_names_that_became_one(monkeypatch):
    """They are reported together, under both names."""
    monkeypatch.setenv("LEFT", "1")
    monkeypatch.setenv("RIGHT", "2")
    assert kinds() == [("warning", "deprecated-name", "LEFT RIGHT")]


def test_validators_that_raise_anything(monkeypatch):
    """What a class's own validator raises is a finding; of a secret nothing is told."""
    monkeypatch.setenv("TOOL_ODD", "2")
    monkeypatch.setenv("TOOL_KEY", "hunter2")
    secret, odd = check(Engine)
    assert "its validator raised RuntimeError: even" in odd.message
    assert "hunter2" not in str(secret)


@pytest.mark.parametrize(("chunk", "told"), [("13", "chunk 13 needs a pair"), ("666", "RuntimeError: no")])
def test_values_that_do_not_go_together(monkeypatch, chunk, told):
    """Rules over several settings are checked when each is good by itself."""
    monkeypatch.setenv("TOOL_CHUNK", chunk)
    (finding,) = check(Engine)
    assert (finding.kind, finding.severity) == ("combination", "error")
    assert told in finding.message


def test_files_that_cannot_be_used(tmp_path, monkeypatch):
    """Each flaw of each source is a finding with its line, and what is good in them is still looked at."""
    config = tmp_path / "x.toml"
    config.write_text("chunk = 0\nnonsense = 1\nTOOL_GONE = 2\nOLD_CHUNK = 5\n")
    dotenv = tmp_path / ".env"
    dotenv.write_text("not an assignment\n")
    found = check(
        Engine, file=config, dotenv=[dotenv, tmp_path / "none.env"], secrets_dir=tmp_path / "none", flags=tmp_path / "f"
    )
    by_origin = {it.origin: it for it in found if it.kind == "unusable-source"}
    assert f"{config}:2" in by_origin
    assert {f"dotenv file {dotenv}", f"dotenv file {tmp_path / 'none.env'}", f"flag file {tmp_path / 'f'}"} <= set(
        by_origin
    )
    assert any(origin.startswith("secrets folder") for origin in by_origin)
    told = {(it.kind, it.origin) for it in found}
    assert ("removed-name", f"{config}:3") in told
    assert ("bad-value", f"config file at {config}:1") in told
    deprecated = next(it for it in found if it.kind == "deprecated-name")
    assert deprecated.suggestion == "use chunk"
    assert [it.severity for it in found] == sorted(it.severity for it in found)


def test_paths_of_unknown_users():
    """A home folder that there is not is an error of that source alone."""
    path = "~nobody-of-that-name/x.env"
    found = check(Engine, dotenv=path, secrets_dir=path, file=path, flags=path)
    assert [it.kind for it in found] == ["unusable-source"] * 4


def test_what_is_in_dotenv_and_secrets(tmp_path):
    """Slips and removed names are found there too, at their line or file."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("A=1\nTOOL_CHUNKS=1\n")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "TOOL_GONE").write_text("1")
    gone, slip = check(Engine, dotenv=dotenv, secrets_dir=tmp_path / "s")
    assert (gone.kind, gone.origin) == ("removed-name", str(tmp_path / "s" / "TOOL_GONE"))
    assert (slip.kind, slip.setting, slip.origin) == ("unknown-name", "chunk", f"{dotenv}:2")
    assert slip.suggestion == "did you mean TOOL_CHUNK?"


class Store(PydanticBaseSettingsSource):
    def get_field_value(self, field, field_name):
        raise NotImplementedError

    def __call__(self):
        return {"chunk": "0"}


def broken_store(cls):
    raise OSError("unreachable")


def test_cloud_stores():
    """A store is read like any source, and one that fails hides no other."""
    assert [kind for _, kind, _ in kinds(cloud=[Store, broken_store])] == ["unusable-source", "bad-value"]


class FakeFlags:
    names = ("chunk", "high", "odd")
    timed = frozenset()

    def evaluate(self, name, context):
        if name == "chunk":
            raise BadValue(name="chunk", variable=None, given=0, origin="flag chunk", reason="is small", allowed="more")
        if name == "high":
            raise OSError("unreachable")


def test_flags_that_cannot_be_evaluated():
    """Each flag is asked in the process's context; what it raises is a finding."""
    bad, broken = check(Engine, flags=FakeFlags())
    assert (bad.origin, bad.message) == ("flag chunk", "the flag of chunk: is small")
    assert "OSError: unreachable" in broken.message


class Unread(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="UNREAD_")
    read_by = ("dsa_config",)

    spare: bool = setting(False)


def test_declared_and_never_read():
    """A setting that no code of the project reads is worth a warning before anybody sets it."""
    (finding,) = check(Unread)
    assert (finding.severity, finding.kind, finding.setting) == ("warning", "unread-setting", "spare")
    assert finding.origin == "the declaration of Unread"
    assert finding.message == "spare is declared, and no code of this version reads it"


def test_set_and_never_read(monkeypatch, tmp_path):
    """It is told at the place that sets it, whatever the source."""
    monkeypatch.setenv("UNREAD_SPARE", "1")
    (finding,) = check(Unread)
    assert (finding.severity, finding.kind, finding.setting) == ("warning", "unread-setting", "spare")
    assert "no code of this version reads it" in finding.message
    assert exit_code((finding,)) == 1
    monkeypatch.delenv("UNREAD_SPARE")
    flags = tmp_path / "flags.json"
    flags.write_text('{"flags": {"spare": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"}}}')
    (finding,) = check(Unread, flags=flags)
    assert (finding.kind, finding.origin) == ("unread-setting", "feature flag spare")


def test_what_was_loaded_is_checked(tmp_path):
    """Without arguments, the sources of the live object."""
    path = tmp_path / "x.toml"
    path.write_text("chunk = 4\n")
    live(Engine).load(file=path)
    try:
        path.write_text("chunk = 0\n")
        assert kinds() == [("error", "bad-value", "chunk")]
        assert live(Engine).chunk == 4
    finally:
        live(Engine).load()
    with pytest.raises(TypeError):
        check(Engine, nonsense=1)


def test_a_secret_is_never_shown(monkeypatch):
    """A name of a secret in conflict shows masks."""

    class Kept(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="KEPT_")
        token: SecretStr = setting(SecretStr(""), deprecated_names=[Renamed("OLD_TOKEN", "1", "2")])

    monkeypatch.setenv("KEPT_TOKEN", "hunter2")
    monkeypatch.setenv("OLD_TOKEN", "hunter3")
    told = "\n".join(map(str, check(Kept)))
    assert "different text" in told
    assert "hunter" not in told


KNOWN = sorted({*settings_of(DSASettings)["fuse_topk"].variables, *control_variables(DSASettings), "SGLANG_DSA_TOPK"})
names = st.one_of(
    st.sampled_from(KNOWN),
    st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.builds("SGLANG_{}".format, st.text("ADNST_KO", max_size=20)),
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@given(st.dictionaries(names, texts, max_size=6))
def test_a_hostile_environment_is_reported_and_never_raises(environment):
    """Whatever the names and texts are: findings, each printable, and never an exception."""
    with mock.patch.dict(os.environ, environment):
        for finding in check(DSASettings):
            assert finding.message
            assert finding.severity in ("error", "warning")
            assert str(finding)


def test_lines_of_dotenv_files_with_empty_lines(tmp_path):
    """Empty lines before a variable, or before a line that is no assignment, do not move it."""
    path = tmp_path / ".env"
    path.write_text("\n\r\n# note\n\n  TOOL_CHUNK=0\n")
    (finding,) = check(Engine, dotenv=path)
    assert finding.origin == f"dotenv variable TOOL_CHUNK at {path}:5"
    path.write_text("A=1\n\n\nnot an assignment\n")
    (finding,) = check(Engine, dotenv=path)
    assert finding.message.endswith("line 4 is no assignment")
