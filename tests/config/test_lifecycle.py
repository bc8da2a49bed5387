"""Deprecated names through the versions: transforms, splits, merges, prefixes, tombstones, and how strict to be."""

from __future__ import annotations

import os
import warnings

import pytest
from pydantic_settings import SettingsConfigDict

import dsa_config
from dsa_config import (
    BadValue,
    ConflictRefused,
    DeclarationError,
    DeprecatedName,
    DeprecatedNameRefused,
    DSASettings,
    LiveSettings,
    Merged,
    Removed,
    Renamed,
    RenamedPrefix,
    SourceError,
    inverted,
    live,
    scaled,
    setting,
)
from dsa_config.declared import settings_of
from dsa_config.lifecycle import forget_warnings
from dsa_config.renames import overdue


def _mode(old_fast, old_small):
    if old_fast and old_small:
        raise ValueError("fast and small exclude each other")
    return "fast" if old_fast else "small" if old_small else "plain"


class Moved(LiveSettings):
    """Every way in which a name can move."""

    model_config = SettingsConfigDict(env_prefix="MOVED_")
    project_version = "1.0"
    removed_names = (Removed("MOVED_FLASH", removed_in="0.9", instead="kernels choose for themselves"),)

    on: bool = setting(True, deprecated_names=[inverted("DISABLE_MOVED", since="0.5", remove_in="2.0")])
    wait_s: float = setting(
        1.0, ge=0, deprecated_names=[scaled("MOVED_WAIT_MS", 0.001, since="0.5", remove_in="2.0", old_type=int)]
    )
    size: int = setting(
        8,
        le=100,
        deprecated_names=[
            scaled("MOVED_SIZE_K", 1024, since="0.5", error_in="1.5", remove_in="2.0", old_type=int),
            Renamed("OLDER_SIZE", since="0.3", error_in="0.8", remove_in="2.0"),
            Renamed("OLDEST_SIZE", since="0.1", remove_in="0.7"),
        ],
    )
    rows: int = setting(
        1,
        deprecated_names=[
            Renamed("MOVED_SHAPE", "0.5", "2.0", split=True, old_type=str, convert=lambda it: int(it.split("x")[0]))
        ],
    )
    columns: int = setting(
        1,
        deprecated_names=[
            Renamed("MOVED_SHAPE", "0.5", "2.0", split=True, old_type=str, convert=lambda it: int(it.split("x")[1]))
        ],
    )
    mode: str = setting(
        "plain",
        deprecated_names=[
            Merged(("MOVED_FAST", "MOVED_SMALL"), "0.5", "2.0", old_types=(bool, bool), convert=_mode, error_in="1.5")
        ],
    )
    late: int = setting(0, introduced="1.2")


moved = live(Moved)


class Prefixed(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="NEW_")
    deprecated_prefixes = (RenamedPrefix("OLD_", since="0.1", remove_in="2.0"), RenamedPrefix("ANCIENT_", "0.0.1", "1"))

    a: int = setting(1)
    b: int = setting(1, env="ELSEWHERE")
    c: int = setting(1, deprecated_names=[Renamed("C", since="0.2", remove_in="3")])


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    forget_warnings()
    yield
    monkeypatch.undo()
    moved.load()


def test_an_inverted_name(monkeypatch):
    """DISABLE_X=1 reads as X=0, and the warning says what to set instead."""
    monkeypatch.setenv("DISABLE_MOVED", "yes")
    with pytest.warns(DeprecatedName, match="DISABLE_MOVED is deprecated since 0.5 .* in 2.0: use MOVED_ON=0$"):
        assert moved.on is False
    monkeypatch.setenv("DISABLE_MOVED", "0")
    assert moved.on is True
    monkeypatch.setenv("DISABLE_MOVED", "maybe")
    with pytest.raises(BadValue, match=r"DISABLE_MOVED='maybe' .* is not a boolean"):
        moved.on  # noqa: B018


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
def test_a_name_with_another_unit(monkeypatch):
    """The value is scaled, and then has to fit the setting."""
    monkeypatch.setenv("MOVED_WAIT_MS", "1500")
    assert moved.wait_s == 1.5
    monkeypatch.setenv("MOVED_SIZE_K", "0")
    assert moved.size == 0
    monkeypatch.setenv("MOVED_SIZE_K", "1")
    with pytest.raises(BadValue, match=r"MOVED_SIZE_K='1' .* less than or equal to 100"):
        moved.size  # noqa: B018
    monkeypatch.setenv("MOVED_SIZE_K", "1.5")
    with pytest.raises(BadValue, match="is not an integer"):
        moved.size  # noqa: B018


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
def test_a_split_name_feeds_several_settings(monkeypatch):
    """Each takes its part; a text that has none is an error that says so."""
    monkeypatch.setenv("MOVED_SHAPE", "3x4")
    assert (moved.rows, moved.columns) == (3, 4)
    monkeypatch.setenv("MOVED_COLUMNS", "9")
    assert (moved.rows, moved.columns) == (3, 9)
    monkeypatch.setenv("MOVED_SHAPE", "three")
    with pytest.raises(BadValue, match="has no counterpart today"):
        moved.rows  # noqa: B018


def test_merged_names_make_one_setting(monkeypatch):
    """Whichever of them are set; together they are one word, with one warning."""
    monkeypatch.setenv("MOVED_SMALL", "1")
    with pytest.warns(DeprecatedName, match="^MOVED_SMALL is deprecated since 0.5 .*: use MOVED_MODE=small$"):
        assert moved.mode == "small"
    monkeypatch.setenv("MOVED_FAST", "0")
    with pytest.warns(DeprecatedName, match="^MOVED_FAST and MOVED_SMALL are deprecated"):
        assert moved.mode == "small"
    assert moved.explain("mode").layers[0].given == "MOVED_FAST=0 MOVED_SMALL=1"
    monkeypatch.setenv("MOVED_FAST", "1")
    with pytest.raises(BadValue, match=r"mode='MOVED_FAST=1 MOVED_SMALL=1' .*fast and small exclude each other"):
        moved.mode  # noqa: B018
    moved.load(emulate_version="1.5")
    with pytest.raises(DeprecatedNameRefused, match="MOVED_FAST and MOVED_SMALL are refused since 1.5: use MOVED_MODE"):
        moved.mode  # noqa: B018
    moved.load(emulate_version="2.0")
    with pytest.warns(DeprecatedName, match="MOVED_FAST and MOVED_SMALL were removed in 2.0 and have no effect"):
        assert moved.mode == "plain"


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
def test_transformed_names_are_compared_by_value(monkeypatch):
    """MOVED_ON=1 and DISABLE_MOVED=0 say the same; MOVED_ON=1 and DISABLE_MOVED=1 do not."""
    monkeypatch.setenv("MOVED_ON", "1")
    monkeypatch.setenv("DISABLE_MOVED", "0")
    assert moved.explain("on").conflict is None
    monkeypatch.setenv("DISABLE_MOVED", "1")
    assert moved.explain("on").conflict == {"MOVED_ON": "1", "DISABLE_MOVED": "1"}
    monkeypatch.setenv("DISABLE_MOVED", "maybe")
    assert moved.explain("on").conflict == {"MOVED_ON": "1", "DISABLE_MOVED": "maybe"}
    assert "use MOVED_ON" in moved.explain("on").warnings[0]


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
def test_a_conflict_names_the_merged_name_that_wins(monkeypatch):
    """Of several deprecated names, the one declared first wins."""
    monkeypatch.setenv("MOVED_SMALL", "1")
    monkeypatch.setenv("MOVED_MODE", "fast")
    assert moved.explain("mode").warnings[-1].endswith("MOVED_MODE wins")
    assert moved.mode == "fast"


def test_a_name_goes_through_its_phases(monkeypatch):
    """Nothing said, then a warning, then an error, then no effect: by the version of the project."""
    monkeypatch.setenv("MOVED_SIZE_K", "0")
    said = {}
    for version in ("0.4", "0.5", "1.4.9", "1.5", "2.0", "3.0rc1"):
        forget_warnings()
        moved.load(emulate_version=version)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                value = moved.size
            except DeprecatedNameRefused as error:
                value = str(error)
        said[version] = (value, [str(it.message).split(":")[0] for it in caught])
    deprecated = "MOVED_SIZE_K is deprecated since 0.5 and will be removed in 2.0"
    removed = "MOVED_SIZE_K was removed in 2.0 and has no effect"
    refused = "MOVED_SIZE_K is refused since 1.5: use MOVED_SIZE=0 (from environment variable MOVED_SIZE_K)"
    assert said == {
        "0.4": (0, []),
        "0.5": (0, [deprecated]),
        "1.4.9": (0, [deprecated]),
        "1.5": (refused, []),
        "2.0": (8, [removed]),
        "3.0rc1": (8, [removed]),
    }


def test_several_old_names_in_their_order(monkeypatch):
    """The first declared wins, a refused one stops the read, and one that is gone stays known for ever."""
    monkeypatch.setenv("OLDEST_SIZE", "3")
    with pytest.warns(DeprecatedName, match="OLDEST_SIZE was removed in 0.7 and has no effect: use MOVED_SIZE"):
        assert moved.size == 8
    monkeypatch.setenv("OLDER_SIZE", "4")
    with pytest.raises(DeprecatedNameRefused, match="OLDER_SIZE is refused since 0.8: use MOVED_SIZE"):
        moved.size  # noqa: B018
    with pytest.raises(DeprecatedNameRefused):
        moved.explain("size")
    with pytest.raises(DeprecatedNameRefused):
        Moved()


def test_a_tombstone_is_reported_at_load(monkeypatch):
    """A name that no setting has any more says what to do instead."""
    monkeypatch.setenv("MOVED_FLASH", "1")
    with pytest.warns(DeprecatedName, match="MOVED_FLASH was removed in 0.9 and has no effect: kernels choose for"):
        moved.reload()


def test_fatal_deprecations(monkeypatch):
    """By argument or variable, the use of a deprecated name is an error; what is not deprecated yet is none."""
    monkeypatch.setenv("DISABLE_MOVED", "1")
    moved.load(fatal_deprecations=True)
    with pytest.raises(DeprecatedNameRefused, match="DISABLE_MOVED is deprecated since 0.5"):
        moved.on  # noqa: B018
    moved.load(fatal_deprecations=True, emulate_version="0.4")
    assert moved.on is False
    monkeypatch.setenv("MOVED_FATAL_DEPRECATIONS", "on")
    moved.load()
    with pytest.raises(DeprecatedNameRefused):
        moved.on  # noqa: B018
    with pytest.raises(DeprecatedNameRefused):
        Moved()
    monkeypatch.setenv("MOVED_EMULATE_VERSION", "0.4")
    moved.load()
    assert moved.on is False


def test_fatal_conflicts(monkeypatch, tmp_path):
    """In strict mode two names with different text are an error: in the environment and in a dotenv file."""
    monkeypatch.setenv("MOVED_ON", "1")
    monkeypatch.setenv("DISABLE_MOVED", "1")
    moved.load(fatal_conflicts=True)
    with pytest.raises(ConflictRefused, match=r"on is set under several names .*MOVED_ON='1', DISABLE_MOVED='1'\)$"):
        moved.on  # noqa: B018
    (tmp_path / ".env").write_text("MOVED_ON=1\nDISABLE_MOVED=1\n")
    with pytest.raises(ConflictRefused):
        moved.load(fatal_conflicts=True, dotenv=tmp_path / ".env")


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        (
            "MOVED_FATAL_DEPRECATIONS",
            "maybe",
            "environment variable MOVED_FATAL_DEPRECATIONS: 'maybe' is not a boolean",
        ),
        ("MOVED_EMULATE_VERSION", "soon", "'soon' is not a version; wanted numbers with dots"),
    ],
)
def test_bad_control_variables(monkeypatch, variable, text, words):
    """They are refused like any other bad value."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(SourceError, match=words):
        moved.reload()


def test_a_setting_that_the_version_does_not_have(monkeypatch):
    """Under an older version its names have no effect, and that is said."""
    monkeypatch.setenv("MOVED_LATE", "5")
    moved.load(emulate_version="1.2")
    assert moved.late == 5
    moved.load(emulate_version="1.1")
    with pytest.warns(DeprecatedName, match="MOVED_LATE has no effect: late is there since 1.2"):
        assert moved.late == 0


def test_a_whole_old_prefix(monkeypatch):
    """Every setting that follows the prefix has the old names too; one with a name of its own does not."""
    assert settings_of(Prefixed)["a"].variables == ("NEW_A", "OLD_A", "ANCIENT_A")
    assert settings_of(Prefixed)["b"].variables == ("ELSEWHERE",)
    assert settings_of(Prefixed)["c"].variables == ("NEW_C", "C", "OLD_C", "ANCIENT_C")
    monkeypatch.setenv("OLD_A", "7")
    monkeypatch.setenv("ANCIENT_C", "8")
    with pytest.warns(DeprecatedName, match="OLD_A is deprecated since 0.1"):
        assert live(Prefixed).a == 7
    with pytest.warns(DeprecatedName, match="ANCIENT_C is deprecated since 0.0.1"):
        assert live(Prefixed).c == 8


def test_deprecations_are_never_written_to_the_environment(monkeypatch):
    """However a name is transformed, os.environ is what it was."""
    monkeypatch.setenv("DISABLE_MOVED", "1")
    monkeypatch.setenv("MOVED_SHAPE", "3x4")
    before = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moved.snapshot()
    assert dict(os.environ) == before


def test_a_snapshot_has_todays_values(monkeypatch):
    """Converted once, also where the value comes under an old name."""
    monkeypatch.setenv("DISABLE_MOVED", "1")
    monkeypatch.setenv("MOVED_WAIT_MS", "2500")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        taken = moved.snapshot()
        assert (taken.on, taken.wait_s) == (False, 2.5)
        assert (Moved().on, Moved().wait_s) == (False, 2.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Renamed("X", since="2.0", remove_in="1.0"), "X: the versions 2.0, 1.0 do not follow each other"),
        (lambda: Renamed("X", since="1.0", error_in="1.0", remove_in="2.0"), "do not follow each other"),
        (lambda: Renamed("X", since="soon", remove_in="2.0"), "X: 'soon' is not a version"),
        (lambda: Merged(("A",), "1", "2", old_types=(int,), convert=int), "wanted two names or more, and a type for"),
        (lambda: Removed("X", removed_in="", instead="-"), "'' is not a version"),
        (lambda: RenamedPrefix("X_", since="2", remove_in="2"), r"X_\*: the versions"),
    ],
)
def test_lifecycles_that_cannot_be_are_refused(make, words):
    """When they are declared, with the name."""
    with pytest.raises(DeclarationError, match=words):
        make()


def test_an_old_type_must_be_a_plain_one():
    """Text of an old name is a boolean, a number or text."""

    class Odd(LiveSettings):
        x: int = setting(1, deprecated_names=[Renamed("Y", "1", "2", old_type=list, convert=len)])

    with pytest.raises(DeclarationError, match="Y has type <class 'list'>; wanted one of bool, int, float, str"):
        live(Odd)


def test_a_removed_name_or_a_control_cannot_be_a_setting_too():
    """A name means one thing."""

    class Undead(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="UNDEAD_")
        removed_names = (Removed("UNDEAD_X", removed_in="1", instead="-"),)

        x: int = setting(1)

    class Control(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="CONTROL_")

        profile: int = setting(1)

    with pytest.raises(DeclarationError, match="'UNDEAD_X' is a name of both a removed setting and x"):
        live(Undead)
    with pytest.raises(DeclarationError, match="'CONTROL_PROFILE' is a name of both the settings themselves and prof"):
        live(Control)


def test_no_deprecation_of_this_project_is_overdue():
    """The version of the package has not passed a removal: then the name would have to become a tombstone."""
    assert overdue(DSASettings, dsa_config.__version__) == []
    assert [entry.name for entry in overdue(Moved, "2.0")][:2] == ["DISABLE_MOVED", "MOVED_WAIT_MS"]
    assert [entry.name for entry in overdue(Prefixed, "1.0")] == ["ANCIENT_*", "ANCIENT_A", "ANCIENT_C"]
