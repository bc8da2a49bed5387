"""Config files: formats, positions, includes, profiles, and the refusal of a whole file for one error."""

from __future__ import annotations

import json

import pytest
from own_settings import own
from pydantic_settings import SettingsConfigDict

from dsa_config import BadValue, BadValues, LiveSettings, Removed, Renamed, SourceError, live, setting


class Filed(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="FILED_")
    config_table = ("tool", "filed")
    removed_names = (Removed("ancient", removed_in="0.5", instead="there is nothing like it any more"),)

    flag: bool = setting(False, deprecated_names=[Renamed("enabled", since="0.1", remove_in="9.0")])
    size: int = setting(1, ge=0, le=100)
    tags: tuple[str, ...] = setting(())


filed = live(Filed)

TEXTS = {
    "a.toml": "size = 7\ntags = [\n  'x',\n]\nflag = true\n",
    "a.yaml": "size: 7\ntags:\n  - x\nflag: yes\n",
    "a.yml": "size: 7\ntags: [x]\nflag: 'on'\n",
    "a.json": '{"size": 7,\n "tags": ["x"],\n "flag": 1}',
    "pyproject.toml": "[tool.filed]\nsize = 7\ntags = ['x']\nflag = 'yes'\n",
}


@pytest.fixture(autouse=True)
def _unload(monkeypatch):
    yield
    monkeypatch.undo()
    filed.load()


@pytest.mark.parametrize("name", TEXTS)
def test_every_format_gives_the_same_values(tmp_path, name):
    """TOML, YAML, JSON and the table of a pyproject.toml are read alike, with types as the format has them."""
    (tmp_path / name).write_text(TEXTS[name])
    filed.load(file=tmp_path / name)
    assert (filed.size, filed.tags, filed.flag) == (7, ("x",), True)
    assert filed.loaded_files() == (tmp_path / name,)
    assert filed.explain("size").source == "file"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("a.toml", "a.toml:5"),
        ("a.yaml", "a.yaml:4:7"),
        ("a.json", "a.json:3:10"),
        ("pyproject.toml", "pyproject.toml:4"),
    ],
)
def test_explain_gives_the_line(tmp_path, name, where):
    """File and line of a value, and the column where the parser tells it."""
    (tmp_path / name).write_text(TEXTS[name])
    filed.load(file=tmp_path / name)
    assert filed.explain("flag").origin == f"config file at {tmp_path / where}"


def test_a_value_of_several_lines_is_found_where_it_begins(tmp_path):
    """The line of the key, whatever blank lines and comments come before it."""
    (tmp_path / "a.toml").write_text("# one\nsize = 1\n\n# about tags\ntags = [\n 'a',\n\n 'b',\n]\n")
    filed.load(file=tmp_path / "a.toml")
    assert str(filed.explain("tags").origin).endswith(("a.toml:4", "a.toml:5"))


def test_a_file_that_changed_since_keeps_its_positions(tmp_path):
    """The line is that of the text that was loaded."""
    path = tmp_path / "a.toml"
    path.write_text("\n\nsize = 7\n")
    filed.load(file=path)
    path.write_text("size = 8\n")
    assert filed.explain("size").origin == f"config file at {path}:3"
    path.unlink()
    assert filed.size == 7


def test_the_variable_names_the_file(tmp_path, monkeypatch):
    """FILED_CONFIG, FILED_PROFILE, FILED_DOTENV and FILED_SECRETS_DIR are read by load() and reload()."""
    (tmp_path / "a.toml").write_text("size = 2\n[profiles.big]\nsize = 90\n")
    (tmp_path / ".env").write_text("FILED_FLAG=1\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "FILED_TAGS").write_text('["s"]\n')
    monkeypatch.setenv("FILED_CONFIG", str(tmp_path / "a.toml"))
    monkeypatch.setenv("FILED_PROFILE", "big")
    monkeypatch.setenv("FILED_DOTENV", str(tmp_path / ".env"))
    monkeypatch.setenv("FILED_SECRETS_DIR", str(tmp_path / "secrets"))
    filed.reload()
    assert (filed.size, filed.flag, filed.tags) == (90, True, ("s",))
    monkeypatch.delenv("FILED_PROFILE")
    filed.reload()
    assert filed.size == 2
    filed.load(file=None, dotenv=None, secrets_dir=None)
    assert (filed.size, filed.flag, filed.tags) == (1, False, ()), "what the caller says is stronger than the variables"


def test_a_file_named_before_the_first_read_is_loaded_by_it(tmp_path, monkeypatch):
    """Nobody needs to call load()."""

    class Early(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="EARLY_")

        size: int = setting(1)

    (tmp_path / "a.json").write_text('{"size": 5}')
    monkeypatch.setenv("EARLY_CONFIG", str(tmp_path / "a.json"))
    assert own(Early).size == 5


def test_a_bad_file_named_by_the_variable_is_an_error_of_every_read(tmp_path, monkeypatch):
    """It never silently becomes the defaults, and it is read once it is mended."""

    class Broken(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="BROKEN_")

        size: int = setting(1)

    path = tmp_path / "a.toml"
    monkeypatch.setenv("BROKEN_CONFIG", str(path))
    broken = own(Broken)
    for _ in range(2):
        with pytest.raises(SourceError, match="cannot be read: No such file"):
            broken.size  # noqa: B018
    path.write_text("size = 3")
    assert broken.size == 3


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_control_variable_is_an_error(monkeypatch, text):
    """Like any other empty value."""
    monkeypatch.setenv("FILED_CONFIG", text)
    with pytest.raises(SourceError, match="environment variable FILED_CONFIG: is empty"):
        filed.reload()


def test_the_order_of_layers(tmp_path, monkeypatch):
    """default < file < secrets < dotenv < environment < set < override, and explain shows every one."""
    (tmp_path / "a.toml").write_text("size = 2")
    (tmp_path / ".env").write_text("FILED_SIZE=4")
    (tmp_path / "FILED_SIZE").write_text("3")
    seen = [filed.size]
    filed.load(file=tmp_path / "a.toml")
    seen.append(filed.size)
    filed.load(file=tmp_path / "a.toml", secrets_dir=tmp_path)
    seen.append(filed.size)
    filed.load(file=tmp_path / "a.toml", secrets_dir=tmp_path, dotenv=tmp_path / ".env")
    seen.append(filed.size)
    monkeypatch.setenv("FILED_SIZE", "5")
    seen.append(filed.size)
    filed.set(size=6)
    seen.append(filed.size)
    with filed.override(size=7):
        seen.append(filed.size)
        layers = filed.explain("size").layers
    filed.reset()
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert [(layer.source, layer.value) for layer in layers] == [
        ("override", 7), ("set", 6), ("environment", 5), ("dotenv", 4), ("secrets", 3), ("file", 2), ("default", 1),
    ]  # fmt: skip


def test_includes_and_profiles(tmp_path):
    """A file is stronger than what it includes, the last include than the first, and a profile than its own file."""
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "base.yaml").write_text(
        "size: 1\nflag: true\nprofiles:\n  fast: {size: 11, tags: [base]}\n"
    )
    (tmp_path / "presets" / "more.json").write_text('{"tags": ["more"], "size": 2}')
    top = tmp_path / "a.toml"
    top.write_text('include = ["presets/base.yaml", "presets/more.json"]\nprofile = "fast"\n')
    filed.load(file=top)
    assert (filed.size, filed.flag, filed.tags) == (2, True, ("more",))
    top.write_text('include = "presets/base.yaml"\nprofile = "fast"\n[profiles.slow]\nsize = 9\n')
    filed.reload()
    assert (filed.size, filed.tags) == (11, ("base",))
    assert filed.explain("size").origin.startswith("profile fast of the config file at ")
    filed.load(file=top, profile="slow")
    assert filed.size == 9
    assert len(filed.loaded_files()) == 2
    assert [layer.value for layer in filed.explain("size").layers] == [9, 1, 1]


def test_a_deprecated_name_in_a_file_is_read_and_reported(tmp_path):
    """Files use field names; a deprecated name is a key too, and warns."""
    (tmp_path / "a.toml").write_text("enabled = true")
    with pytest.warns(FutureWarning, match="enabled is deprecated since 0.1 .* use FILED_FLAG"):
        filed.load(file=tmp_path / "a.toml")
    assert filed.flag is True
    assert "enabled is deprecated" in filed.explain("flag").warnings[0]


REFUSED = {
    "missing.toml": (None, "cannot be read: No such file"),
    "a.ini": ("size = 1", "has no format that is known by its name; wanted .toml, .yaml"),
    "syntax.toml": ("size = = 1", "cannot be parsed"),
    "syntax.yaml": ("size: [1", "cannot be parsed"),
    "syntax.json": ('{"size": ', "cannot be parsed"),
    "list.json": ("[1]", "is no table of settings"),
    "list.yaml": ("- 1", "is no table of settings"),
    "words.yaml": ("on: 1", "has the key True, which is no text; on, off, yes"),
    "twice.json": ('{"size": 1, "size": 2}', "the key 'size' is there twice"),
    "twice.yaml": ("size: 1\nsize: 2\n", "the key 'size' is there twice"),
    "unknown.toml": ("\nsise = 1", r"unknown.toml:2: 'sise' is not a setting; did you mean size\?"),
    "variable.toml": ("FILED_SIZE = 1", "is the environment name of size; files use size"),
    "removed.toml": ("ancient = 1", "ancient was removed in 0.5 and has no effect: there is nothing like it"),
    "profiles.toml": ("profiles = 3", "profiles holds a table for each profile"),
    "profile.toml": ("profile = 'x'\n[profiles.y]\nsize=1", "the profile 'x' is named at .*:1; there are y"),
    "noprofiles.toml": ("profile = 'x'", "there are no profiles"),
    "inprofile.toml": ("[profiles.y]\nsise = 1", r"inprofile.toml:2: 'sise' is not a setting"),
    "unused.toml": ("[profiles.y]\nsize = 101", "less than or equal to 100"),
    "include.toml": ("include = 3", "include is a path or a list of paths"),
    "nowhere.json": ('{"include": "a\\u0000b"}', "cannot be read: embedded null byte"),
    "self.toml": ("include = 'self.toml'", "includes itself"),
    "pyproject.toml": ("[tool.other]\nx = 1", r"has no table \[tool.filed\]"),
    "nested/pyproject.toml": ("[tool]\nfiled = 3", "is no table of settings"),
    "latin.toml": (b"name = '\xff'", r"is not UTF-8 \(byte 8\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_with_an_error_is_refused_whole(tmp_path, name):
    """One sentence names the file and what is wrong; the last good values stay."""
    (tmp_path / "good.toml").write_text("size = 42")
    filed.load(file=tmp_path / "good.toml")
    content, words = REFUSED[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SourceError, match=words) as caught:
        filed.load(file=path)
    assert str(tmp_path) in str(caught.value)
    assert filed.size == 42
    filed.reload()
    assert filed.size == 42, "a refused load does not change what reload() reads"


def test_all_errors_of_a_file_are_told_at_once(tmp_path):
    """So that all can be mended at once."""
    path = tmp_path / "a.toml"
    path.write_text("sise = 1\nflga = 2\n")
    with pytest.raises(SourceError, match="has 2 errors") as caught:
        filed.load(file=path)
    assert len(caught.value.reasons) == 2
    path.write_text("size = 101\nflag = 'maybe'\n")
    with pytest.raises(BadValues) as bad:
        filed.load(file=path)
    assert [error.name for error in bad.value.errors] == ["flag", "size"]
    path.write_text("size = 2.5")
    with pytest.raises(BadValue, match=rf"size=2.5 \(from config file at {path}:1\): is not an integer; size takes"):
        filed.load(file=path)


def test_a_key_the_parser_cannot_place_is_named_by_its_file(tmp_path):
    """JSON with a tab is no YAML: the file is named without a line."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"size": 3}, indent="\t"))
    filed.load(file=path)
    assert filed.explain("size").origin in (f"config file at {path}", f"config file at {path}:2:10")


def test_load_refuses_an_argument_that_it_does_not_have(tmp_path):
    """A typo in load() is a TypeError, as for any function."""
    with pytest.raises(TypeError, match="flie"):
        filed.load(flie=tmp_path)


def test_a_yaml_alias_that_holds_itself_is_no_trap(tmp_path):
    """Hostile YAML ends in an error, not in a loop."""
    path = tmp_path / "a.yaml"
    path.write_text("tags: &a [*a]\n")
    with pytest.raises((SourceError, BadValue)):
        filed.load(file=path)


def test_yaml_without_pyyaml_says_what_to_install(tmp_path, monkeypatch):
    """The extra is named."""
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("size: 1")
    with pytest.raises(SourceError, match=r"needs PyYAML: pip install 'dsa\[yaml\]'"):
        filed.load(file=tmp_path / "a.yaml")
