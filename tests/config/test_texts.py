"""Dotenv files, folders of secrets and cloud stores: texts under environment names."""

from __future__ import annotations

import pytest
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from dsa_config import BadValue, LiveSettings, Removed, Renamed, SourceError, live, setting
from dsa_config.lifecycle import forget_warnings


class Texted(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="TEXTED_")
    removed_names = (Removed("TEXTED_ANCIENT", removed_in="0.5", instead="delete it"),)

    flag: bool = setting(False, deprecated_names=[Renamed("OLD_FLAG", since="0.1", remove_in="9.0")])
    size: int = setting(1, ge=0, le=100)


texted = live(Texted)


@pytest.fixture(autouse=True)
def _unload():
    forget_warnings()
    yield
    texted.load()


def test_a_dotenv_file_gives_text_by_variable(tmp_path):
    """Quotes, export and comments are dotenv's; the grammar is ours; other people's names are left alone."""
    path = tmp_path / ".env"
    path.write_text("# c\nexport TEXTED_FLAG='on' # yes\nTEXTED_SIZE=\"12\"\nOTHER=1\nTEXTED_UNKNOWN=2\n")
    texted.load(dotenv=path)
    assert (texted.flag, texted.size) == (True, 12)
    it = texted.explain("flag")
    assert (it.source, it.origin) == ("dotenv", f"dotenv variable TEXTED_FLAG at {path}:2")


def test_the_last_of_several_dotenv_files_is_strongest(tmp_path):
    """And explain shows both."""
    (tmp_path / "a").write_text("TEXTED_SIZE=1\n")
    (tmp_path / "b").write_text("TEXTED_SIZE=2\nTEXTED_SIZE=3\n")
    texted.load(dotenv=[tmp_path / "a", str(tmp_path / "b")])
    assert texted.size == 3
    assert [layer.given for layer in texted.explain("size").layers] == ["3", "1", 1]
    assert texted.explain("size").origin.endswith("b:2"), "of a variable that is given twice, the last counts"


def test_names_in_a_dotenv_file_are_weighed_together(tmp_path):
    """A deprecated name warns at load, and a conflict is reported with both texts."""
    path = tmp_path / ".env"
    path.write_text("OLD_FLAG=0\nTEXTED_FLAG=1\nTEXTED_ANCIENT=1\n")
    with pytest.warns(FutureWarning) as caught:
        texted.load(dotenv=path)
    told = [str(warning.message) for warning in caught]
    assert any("OLD_FLAG is deprecated since 0.1" in it for it in told)
    assert any("different text (TEXTED_FLAG='1', OLD_FLAG='0'): TEXTED_FLAG wins" in it for it in told)
    assert any("TEXTED_ANCIENT was removed in 0.5 and has no effect: delete it" in it for it in told)
    assert texted.explain("flag").conflict == {"TEXTED_FLAG": "1", "OLD_FLAG": "0"}
    assert texted.flag is True


def test_a_bad_dotenv_file_is_refused_whole(tmp_path):
    """A line that is no assignment, a bad value, a missing file."""
    path = tmp_path / ".env"
    path.write_text("TEXTED_SIZE=5\n")
    texted.load(dotenv=path)
    path.write_text("TEXTED_SIZE=6\nthis is = = 'not\n")
    with pytest.raises(SourceError, match=rf"dotenv file {path}: line 2 is no assignment"):
        texted.reload()
    path.write_text("TEXTED_SIZE=101\n")
    with pytest.raises(BadValue, match=rf"TEXTED_SIZE='101' \(from dotenv variable TEXTED_SIZE at {path}:1\)"):
        texted.reload()
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        texted.reload()
    assert texted.size == 5


def test_a_variable_without_a_value_says_nothing(tmp_path):
    """`NAME` without `=` is no value in dotenv's format; `NAME=` is an empty one, and an error."""
    (tmp_path / ".env").write_text("TEXTED_SIZE\n")
    texted.load(dotenv=tmp_path / ".env")
    assert texted.size == 1
    (tmp_path / ".env").write_text("TEXTED_SIZE=\n")
    with pytest.raises(BadValue, match="is not an integer"):
        texted.reload()


def test_a_folder_of_secrets_has_a_file_for_each_name(tmp_path):
    """Also as Kubernetes mounts it, with links to a folder that is swapped."""
    (tmp_path / "..2026_1").mkdir()
    (tmp_path / "..2026_1" / "TEXTED_SIZE").write_text(" 7\n")
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "TEXTED_SIZE").symlink_to("..data/TEXTED_SIZE")
    texted.load(secrets_dir=tmp_path)
    assert texted.size == 7
    it = texted.explain("size")
    assert (it.source, it.origin) == ("secrets", f"secret at {tmp_path / 'TEXTED_SIZE'}")
    with pytest.raises(SourceError, match="secrets folder .*missing: cannot be read"):
        texted.load(secrets_dir=tmp_path / "missing")
    with pytest.raises(SourceError, match="secrets folder"):
        texted.load(secrets_dir=tmp_path / "TEXTED_SIZE")
    assert texted.size == 7


class Store(EnvSettingsSource):
    """Stands in for a cloud store: like those of pydantic-settings, an environment source over fetched texts."""

    fetched: dict[str, str] = {}  # noqa: RUF012

    def _load_env_vars(self):
        return dict(self.fetched)


class Fields(PydanticBaseSettingsSource):
    """A source that gives values by field name."""

    def get_field_value(self, field, field_name):
        return None, field_name, False

    def __call__(self):
        return {"size": 9}


def test_a_cloud_store_is_read_at_load(monkeypatch):
    """By environment name or field name; once a load, never by a read; stronger than the config file."""
    monkeypatch.setattr(Store, "fetched", {"TEXTED_SIZE": "4", "flag": "yes", "OTHER": "x"})
    texted.load(cloud=[Store])
    assert (texted.size, texted.flag) == (4, True)
    assert (texted.explain("size").source, texted.explain("size").origin) == ("cloud", "cloud store Store, TEXTED_SIZE")
    monkeypatch.setattr(Store, "fetched", {"TEXTED_SIZE": "5"})
    assert texted.size == 4
    texted.reload()
    assert (texted.size, texted.flag) == (5, False)
    texted.load(cloud=[Store, Fields])
    assert texted.size == 9, "the last is strongest"


def test_a_cloud_store_that_fails_is_refused(monkeypatch):
    """The vendor's error is told, and the last good values stay."""

    def unreachable(cls):
        raise ConnectionError("no route")

    monkeypatch.setattr(Store, "fetched", {"TEXTED_SIZE": "4"})
    texted.load(cloud=[Store])
    with pytest.raises(SourceError, match="cloud store unreachable: cannot be read: ConnectionError: no route"):
        texted.load(cloud=[unreachable])
    with pytest.raises(SourceError, match=r"cloud store <lambda>: made 3; wanted a source of pydantic-settings"):
        texted.load(cloud=[lambda cls: 3])
    monkeypatch.setattr(Store, "fetched", {"TEXTED_SIZE": "many"})
    with pytest.raises(BadValue, match=r"TEXTED_SIZE='many' \(from cloud store Store, TEXTED_SIZE\)"):
        texted.reload()
    assert texted.size == 4


@pytest.mark.parametrize("name", ["AWSSecretsManagerSettingsSource", "AzureKeyVaultSettingsSource"])
def test_the_stores_of_pydantic_settings_fit(name):
    """They are environment sources, so that what is tested with the stub holds for them."""
    import pydantic_settings

    assert issubclass(getattr(pydantic_settings, name), EnvSettingsSource)
