"""What a process says of settings that ranks must agree on, what differs between several, and what one gives all."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import Enum
from typing import Any

import pytest
from own_settings import own
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from dsa_config import BadValue, BadValues, DSASettings, LiveSettings, SettingError, UnknownSetting, setting, settings
from dsa_config.agreement import (
    TARGETING,
    VERSION,
    Account,
    Stated,
    account_of,
    disagreements,
    prepared,
    process_values,
    ranks_in_words,
)
from dsa_config.declared import settings_of


class Mode(Enum):
    FAST = "fast"
    EXACT = "exact"


class Engine(LiveSettings):
    """Settings of all the kinds that matter here."""

    model_config = SettingsConfigDict(env_prefix="ENGINE_")
    project_version = "1.2"

    heads: int = setting(8, ge=1)
    mode: Mode = setting(Mode.FAST)
    tags: frozenset[str] = setting(frozenset({"a", "b"}))
    key: SecretStr = setting(SecretStr("none"))
    port: int = setting(8000, may_differ="each process listens on a port of its own")


def test_every_setting_says_whether_ranks_must_agree():
    """They must, unless the declaration has a reason why not; logs and checks of one process have one."""
    declared = settings_of(DSASettings)
    assert {name for name, it in declared.items() if it.may_differ} == {"debug_check_indices", "debug_log_decisions"}
    properties = DSASettings.model_json_schema()["properties"]
    assert properties["fuse_topk"]["x-ranks"] == "must agree"
    assert properties["debug_log_decisions"]["x-ranks"] == "may differ"


def test_an_account_has_what_must_agree_as_text_with_its_origin(monkeypatch):
    """Not what may differ, and no secret; beside the settings, the version and who asks for flags."""
    engine = own(Engine)
    monkeypatch.setenv("ENGINE_HEADS", "16")
    engine.set(mode="exact")
    account = account_of(engine)
    assert account.texts == {
        VERSION: '"1.2"',
        TARGETING: "null",
        "heads": "16",
        "mode": '"exact"',
        "tags": '["\\"a\\"", "\\"b\\""]',
    }
    assert account.values["heads"] == Stated("16", "environment variable ENGINE_HEADS")
    assert account.values["mode"].origin.startswith("settings.set at ")
    engine.set_flag_context(targetingKey="replica-3", rank=2)
    assert account_of(engine).texts[TARGETING] == '"replica-3"'


def test_a_fingerprint_is_of_values_alone(monkeypatch):
    """The same values from elsewhere are the same; another value of what must agree is another fingerprint."""
    engine = own(Engine)
    before = account_of(engine).fingerprint
    assert len(bytes.fromhex(before)) == 32
    monkeypatch.setenv("ENGINE_HEADS", "8")
    engine.set(port=9000, key="told to nobody")
    assert account_of(engine).fingerprint == before
    with engine.override(heads=9):
        assert account_of(engine).fingerprint != before
    engine.set_flag_context(targetingKey="replica-3")
    assert account_of(engine).fingerprint != before


def test_a_fingerprint_is_the_same_in_every_process():
    """Whatever order sets and hashes have there."""
    program = "from dsa_config import settings; from dsa_config.agreement import account_of as of"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; print(of(settings).fingerprint)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == account_of(settings).fingerprint


def test_an_account_survives_the_way_to_another_process():
    """As bytes, with every origin."""
    account = account_of(settings)
    assert Account.of_bytes(account.to_bytes()) == account
    json.loads(account.to_bytes())


def test_settings_that_cannot_be_read_make_no_account(monkeypatch):
    """All of them are told at once."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    with pytest.raises(BadValue, match="SGLANG_DSA_FUSE_TOPK='maybe'"):
        account_of(settings)
    monkeypatch.setenv("SGLANG_DSA_KV_FORMAT", "fp9")
    with pytest.raises(BadValues, match="2 settings"):
        account_of(settings)


def test_what_differs_is_told_with_values_ranks_and_origins():
    """The same value from two places is two entries, so that the odd one can be found; equal settings are left out."""
    there = {"kept": Stated("1", "a.toml:1")}
    accounts = {
        0: Account({**there, "fuse": Stated("true", "the declaration")}),
        2: Account({**there, "fuse": Stated("false", "a.toml:3")}),
        4: Account({**there, "fuse": Stated("true", "the declaration")}),
        5: Account({"kept": Stated("1", "b.toml:9"), "fuse": Stated("true", "b.toml:2")}),
    }
    (found,) = disagreements(accounts)
    assert found.name == "fuse"
    assert str(found) == (
        "fuse is true on ranks 0, 4 (from the declaration), false on rank 2 (from a.toml:3) "
        "and true on rank 5 (from b.toml:2)"
    )
    assert disagreements({rank: accounts[rank] for rank in (0, 4, 5)}) == ()


def test_a_setting_that_a_rank_does_not_have_differs():
    """Ranks of two versions of a project."""
    (found,) = disagreements({0: Account({"new": Stated("1", "the declaration")}), 1: Account({})})
    assert str(found) == "new is 1 on rank 0 (from the declaration) and not known on rank 1"


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([3], "rank 3"),
        ([0, 1], "ranks 0, 1"),
        ([0, 1, 2], "ranks 0-2"),
        ([0, 2, 3, 4, 7, 8], "ranks 0, 2-4, 7, 8"),
        (range(1024), "ranks 0-1023"),
    ],
)
def test_many_ranks_are_few_words(ranks, words):
    """Three and more in a row are a range."""
    assert ranks_in_words(ranks) == words


def test_what_a_process_gives_is_what_set_gives_of_what_must_agree(monkeypatch):
    """Not the environment, no scope, nothing that may differ; as text that the parser reads back."""
    engine = own(Engine)
    monkeypatch.setenv("ENGINE_HEADS", "16")
    engine.set(mode=Mode.EXACT, port=9000)
    with engine.override(tags={"c"}):
        given = process_values(engine)
    assert given.texts == {"mode": "exact"}
    assert given.values["mode"].origin.startswith("settings.set at ")


def test_a_value_without_a_text_cannot_be_given():
    """It is an error where it is given from, and names the setting."""

    class Odd(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="ODD_", arbitrary_types_allowed=True)

        thing: Any = setting(None)

    odd = own(Odd)
    odd.set(thing=object)
    with pytest.raises(SettingError, match="thing=.* cannot be given to a child process"):
        process_values(odd)


def test_values_are_taken_whole_in_place_of_what_was_set():
    """What only the taker had is taken back; what may differ stays; the origin says who sent it."""
    engine = own(Engine)
    engine.set(heads=4, tags={"c"}, port=9000)
    values = Account({"heads": Stated("32", "settings.set at run.py:7"), "mode": Stated("exact", "settings.set")})
    take = prepared(engine, values, "rank 0")
    assert (engine.heads, engine.tags, engine.mode) == (4, {"c"}, Mode.FAST), "nothing yet"
    take()
    assert (engine.heads, engine.tags, engine.mode, engine.port) == (32, {"a", "b"}, Mode.EXACT, 9000)
    assert engine.explain("heads").origin.startswith("rank 0, from settings.set at run.py:7")


def test_values_that_are_refused_change_nothing():
    """Every one that is bad is told, with where it came from."""
    engine = own(Engine)
    bad = {"heads": Stated("0", "a"), "mode": Stated("slow", "b"), "tags": Stated('["d"]', "c")}
    with pytest.raises(BadValues, match=r"(?s)heads='0' \(from rank 0, from a\).*mode='slow' \(from rank 0, from b\)"):
        prepared(engine, Account(bad), "rank 0")
    with pytest.raises(UnknownSetting, match="'head' is not a setting of Own; did you mean heads"):
        prepared(engine, Account({"head": Stated("1", "a")}), "rank 0")
    assert (engine.heads, engine.tags) == (8, {"a", "b"})
