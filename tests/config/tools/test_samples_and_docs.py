"""Sample files hold every default, and the reference page holds every fact."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, SecretStr
from pydantic_settings import SettingsConfigDict

from dsa_config import DeclarationError, DSASettings, LiveSettings, Renamed, live, setting, settings
from dsa_config.controls import control_variables
from dsa_config.declared import settings_of
from dsa_config.tools.export_docs import settings_page
from dsa_config.tools.export_sample import sample_dotenv, sample_toml
from dsa_config.tools.groups import groups_of
from dsa_config.tools.readers import unread


class Point(BaseModel):
    x: int = 1


class Odd:
    def __init__(self, text="odd"):
        self.text = text

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(lambda it: it if isinstance(it, Odd) else Odd(it))


class Awkward(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="AWKWARD_")
    headings: ClassVar = {"words": "Words"}

    endless: float = setting(float("inf"), introduced="0.3")
    words: str = setting('it\'s a \\ # "word"\x7f\n', effect="process")
    """Any | text."""
    point: Point = setting(Point())
    many: list[int] = setting([1, 2], deprecated_names=[Renamed("MANY", "1.0", "2.0", error_in="1.5")])
    dollars: str = setting("${HOME}")
    token: SecretStr = setting(SecretStr("hunter2"))
    odd: Odd = setting(Odd())


def uncommented(text):
    """The file with every line that can be uncommented."""
    return re.sub(r"^#(?=[A-Za-z\[\"$])", "", text, flags=re.M)


@pytest.fixture
def unloaded():
    yield
    settings.load()
    live(Awkward).load()


@pytest.mark.parametrize("cls", [DSASettings, Awkward])
@pytest.mark.parametrize(("write", "argument"), [(sample_dotenv, "dotenv"), (sample_toml, "file")])
def test_samples_give_the_defaults(cls, write, argument, tmp_path, unloaded):
    """A sample loads as it is and says nothing; with every value uncommented it says every default."""
    path = tmp_path / "sample.toml"
    path.write_text(write(cls))
    loaded = live(cls)
    loaded.load(**{argument: path})
    assert {loaded.explain(name).source for name in settings_of(cls)} == {"default"}
    path.write_text(uncommented(write(cls)))
    loaded.load(**{argument: path})
    unwritable = {"token", "odd", "dollars" if argument == "dotenv" else ""}
    for name, it in settings_of(cls).items():
        explanation = loaded.explain(name)
        if name in unwritable:
            assert explanation.source == "default"
        else:
            assert explanation.source == argument
            assert explanation.value == (it.default.strip() if name == "words" else it.default)


def test_the_toml_sample_names_its_schema():
    """By the key and by the directive that editors know."""
    text = sample_toml(DSASettings)
    assert text.startswith("#:schema ./settings.schema.json\n")
    assert tomllib.loads(text) == {"$schema": "./settings.schema.json"}
    assert tomllib.loads(uncommented(text))["include"] == []


class Unread(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="UNREAD_")
    headings: ClassVar = {"spare": "Spares"}
    read_by = ("dsa_config",)

    spare: bool = setting(False)


def test_samples_leave_out_what_nobody_reads():
    """Unless everything is asked for; the reference says so of it."""
    assert "UNREAD_SPARE" not in sample_dotenv(Unread, everything=False)
    assert "# Spares" not in sample_toml(Unread, everything=False)
    assert "#spare = false" in sample_toml(Unread)
    assert "At present no code of this version reads it." in sample_toml(Unread)
    assert "**No code of this version reads it.**" in settings_page(Unread)


def test_secrets_are_in_no_document():
    """Neither samples nor the reference show a secret's default."""
    for text in (sample_dotenv(Awkward), sample_toml(Awkward), settings_page(Awkward)):
        assert "hunter2" not in text
        assert "odd" in text.lower()


def test_the_reference_has_every_setting_and_control():
    """Name, description, type, default, names, effect, version and example of each."""
    page = settings_page(DSASettings)
    for name, it in settings_of(DSASettings).items():
        section = page.split(f"### {name}\n")[1].split("\n#")[0]
        for part in (it.description, it.allowed, f"`{it.default}`", *it.variables, "takes effect", "since", "example"):
            assert part in section
        assert ("No code of this version reads it." in section) == (name in unread(DSASettings))
    assert all(f"| `{name}` |" in page for name in control_variables(DSASettings))
    assert page.index("| 1 | the default") < page.index("the environment |") < page.index("| 9 | this scope")
    headings = [heading for heading, _ in groups_of(DSASettings)]
    assert re.findall(r"^## (.*)", page, re.M) == [*headings, "Control variables"]


def test_the_reference_of_another_class():
    """Settings before the first heading, versions, refusals, bars in text; no controls where there is no prefix."""
    page = settings_page(Awkward)
    assert "## Settings\n\n### endless" in page
    assert "| since | 0.3 |" in page
    assert "refused from 1.5" in page
    assert "Any | text." in page

    class Bare(LiveSettings):
        headings: ClassVar = {"none": "Nothing"}
        one: int = setting(1)

    with pytest.raises(DeclarationError, match="'none' is no field"):
        settings_page(Bare)
    Bare.headings = {}
    Bare.__doc__ = None
    assert settings_page(Bare).startswith("# Bare\n")
    assert "Control variables" not in settings_page(Bare)


def test_the_reference_is_in_the_docs():
    """The committed page is what is generated; `make generate` writes it."""
    page = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"
    assert page.read_text("utf-8") == settings_page(DSASettings)
