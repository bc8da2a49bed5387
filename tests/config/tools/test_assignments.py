"""`NAME=VALUE` on a command line: any name of a setting, read as the environment is read."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic_settings import SettingsConfigDict

from dsa_config import (
    BadValue,
    BadValues,
    DeprecatedNameRefused,
    LiveSettings,
    Merged,
    Removed,
    Renamed,
    UnknownSetting,
    inverted,
    live,
    setting,
    settings,
)
from dsa_config.tools.assignments import BadAssignment, read_assignments


class Plant(LiveSettings):
    """Settings with old names of every kind."""

    model_config = SettingsConfigDict(env_prefix="PLANT_")
    project_version = "0.5"
    removed_names: ClassVar = (Removed("PLANT_SOIL", removed_in="0.3", instead="use earth"),)

    wet: bool = setting(True, deprecated_names=[inverted("PLANT_DRY", since="0.1", remove_in="1.0")])
    leaves: int = setting(
        3,
        deprecated_names=[
            Merged(
                ("PLANT_ROWS", "PLANT_COLUMNS"),
                since="0.1",
                remove_in="1.0",
                convert=lambda r, c: (r or 1) * (c or 1),
                old_types=(int, int),
            )
        ],
    )
    old: int = setting(1, deprecated_names=[Renamed("PLANT_GONE", since="0.1", remove_in="0.4")])
    late: int = setting(1, deprecated_names=[Renamed("PLANT_LATE_ONE", since="0.1", error_in="0.4", remove_in="1.0")])


PLANT = live(Plant)


@pytest.mark.parametrize("name", ["fuse_topk", "SGLANG_DSA_FUSE_TOPK"])
def test_a_setting_under_its_names(name):
    """The field and the environment name; texts as the environment takes them; nothing is set."""
    found = read_assignments([f"{name}=off", "kernel_launch=topk.gluon.blocks=8, topk.gluon.warps=4"], "--a")
    assert found.warnings == ()
    with settings.override(**found.given):
        assert settings.fuse_topk is False
        assert settings.kernel_launch == "topk.gluon.blocks=8, topk.gluon.warps=4"
    assert settings.fuse_topk is True


def test_a_deprecated_name_means_what_it_meant_and_is_told():
    """Inverted, and several that became one."""
    found = read_assignments(["PLANT_DRY=1", "PLANT_ROWS=4", "PLANT_COLUMNS=5"], "--b", of=PLANT)
    with PLANT.override(**found.given):
        assert (PLANT.wet, PLANT.leaves) == (False, 20)
    assert [told.split(" is ")[0].split(" are ")[0] for told in found.warnings] == [
        "PLANT_DRY",
        "PLANT_ROWS and PLANT_COLUMNS",
    ]


def test_nothing_assigns_nothing():
    """No text, no change."""
    assert read_assignments([], "--a").given == {}


@pytest.mark.parametrize(
    ("texts", "error", "words"),
    [
        (["wet"], BadAssignment, "--a 'wet': wanted NAME=VALUE, such as fuse_topk=0"),
        (["=1"], BadAssignment, "--a '=1': wanted NAME=VALUE"),
        (["wet=1", "PLANT_WET=1"], BadAssignment, "--a 'PLANT_WET=1': wet was given a value before"),
        (["wet=1", "PLANT_DRY=1"], BadAssignment, "--a 'PLANT_DRY=1': wet was given a value before"),
        (["wet=1", "wet=1"], BadAssignment, "--a 'wet=1': wet was given a value before"),
        (["wett=1"], UnknownSetting, "'wett' is not a setting of Plant; did you mean wet"),
        (["PLANT_SOIL=1"], BadAssignment, "PLANT_SOIL was removed in 0.3 and has no effect: use earth"),
        (["PLANT_GONE=1"], BadAssignment, "PLANT_GONE was removed in 0.4 and has no effect: use PLANT_OLD"),
        (["PLANT_LATE_ONE=1"], DeprecatedNameRefused, "PLANT_LATE_ONE is refused since 0.4: use PLANT_LATE"),
        (["wet=maybe"], BadValue, "wet='maybe' (from --a): "),
        (["PLANT_DRY=maybe"], BadValue, "PLANT_DRY='maybe' (from --a): "),
        (["wet=maybe", "leaves=many"], BadValues, "2 settings have values that they do not take"),
    ],
)
def test_texts_that_assign_nothing(texts, error, words):
    """Each is an error with the text, its origin and what is wanted."""
    with pytest.raises(error) as caught:
        read_assignments(texts, "--a", of=PLANT)
    assert words in str(caught.value)
