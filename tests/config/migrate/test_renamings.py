"""What is to be renamed follows from the declarations: plain, converted, merged, split and removed names."""

from __future__ import annotations

import pytest
from pydantic_settings import SettingsConfigDict

from dsa_config import LiveSettings, Merged, Removed, Renamed, inverted, scaled, setting
from dsa_config.errors import Rejected
from dsa_config.tools.migrate.migrate import migrate
from dsa_config.tools.migrate.renamings import renamings_of


class Migrated(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="MIG_")
    removed_names = (Removed("MIG_GONE", removed_in="0.5", instead="nothing takes its place"),)

    plain: int = setting(1, deprecated_names=[Renamed("OLD_PLAIN", "1", "2")])
    on: bool = setting(True, deprecated_names=[inverted("OLD_OFF", since="1", remove_in="2")])
    wait_s: float = setting(1.0, deprecated_names=[scaled("OLD_WAIT_MS", 0.001, since="1", remove_in="2")])
    row: int = setting(1, deprecated_names=[Renamed("OLD_SHAPE", "1", "2", split=True, old_type=str, convert=len)])
    mode: str = setting(
        "x", deprecated_names=[Merged(("OLD_A", "OLD_B"), "1", "2", old_types=(bool, bool), convert=lambda a, b: "y")]
    )
    odd: object = setting(
        None, deprecated_names=[Renamed("OLD_ODD", "1", "2", old_type=str, convert=lambda _: object())]
    )


def test_every_old_name_has_its_renaming():
    """Converted ones with the text of today; what no tool can do, with the reason."""
    found = {it.old: it for it in renamings_of(Migrated)}
    assert (found["OLD_PLAIN"].new, found["OLD_PLAIN"].convert) == ("MIG_PLAIN", None)
    off, wait = found["OLD_OFF"].convert, found["OLD_WAIT_MS"].convert
    assert off is not None
    assert wait is not None
    assert (off("yes"), off("0"), wait("1500")) == ("0", "1", "1.5")
    with pytest.raises(Rejected, match="is not a boolean"):
        off("maybe")
    odd = found["OLD_ODD"].convert
    assert odd is not None
    with pytest.raises(Rejected, match="has no text"):
        odd("x")
    assert found["OLD_SHAPE"].why_by_hand == "OLD_SHAPE was split; one part of it is MIG_ROW"
    assert found["OLD_B"].why_by_hand == "OLD_A and OLD_B became MIG_MODE together"
    assert "MIG_GONE was removed in 0.5 and has no effect: nothing takes" in found["MIG_GONE"].why_by_hand


def test_a_file_is_migrated_by_them(tmp_path):
    """Values are converted, and what needs a hand is told with its line."""
    path = tmp_path / ".env"
    path.write_text("OLD_OFF=yes # c\nOLD_WAIT_MS=250\nOLD_SHAPE=3x4\nMIG_GONE=1\n")
    (report,) = migrate([path], renamings_of(Migrated), write=True)
    assert path.read_text() == "MIG_ON=0 # c\nMIG_WAIT_S=0.25\nOLD_SHAPE=3x4\nMIG_GONE=1\n"
    assert [(it.line, it.name) for it in report.by_hand] == [(3, "OLD_SHAPE"), (4, "MIG_GONE")]
