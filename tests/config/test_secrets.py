"""Secrets: readable where they are needed, and nowhere else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from own_settings import own as own_live
from pydantic import BaseModel, Field, Secret, SecretBytes, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from dsa_config import BadValue, LiveSettings, Renamed, SettingError, TooLate, live, setting
from dsa_config.declared import settings_of

HUSH = "correct-horse-battery"


class Login(BaseModel):
    user: str = ""
    password: SecretStr = SecretStr("")
    again: Login | None = None


@dataclasses.dataclass(frozen=True)
class Pair:
    left: SecretStr


class Guarded(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="GUARDED_")

    key: SecretStr = setting(
        SecretStr(""), effect="allocate", deprecated_names=[Renamed("OLD_KEY", since="0.1", remove_in="9.0")]
    )
    raw: SecretBytes | None = setting(None)
    login: Login = setting(Login())
    pairs: tuple[Pair, ...] = setting(())
    number: Secret[int] | None = setting(None)
    plain: str = setting("x")

    @field_validator("key")
    @classmethod
    def _check(cls, value: SecretStr) -> SecretStr:
        if "bad" in value.get_secret_value():
            raise ValueError(f"{value.get_secret_value()} is bad")
        return value


def _fresh() -> Any:
    return own_live(Guarded)


def test_secret_types_are_found_at_any_depth():
    """In unions, models, dataclasses and collections; and only there."""
    assert [name for name, it in settings_of(Guarded).items() if it.secret] == [
        "key",
        "raw",
        "login",
        "pairs",
        "number",
    ]


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
def test_nothing_that_is_printed_has_the_secret(monkeypatch, tmp_path):
    """Values, explanations, conflicts, history, listeners, late changes, guards, snapshots and objects' reprs."""
    own, told = _fresh(), []
    own.on_change(lambda *it: told.append(it))
    own.passed("allocate", "a cache was allocated")
    guard = own.guard()
    (tmp_path / ".env").write_text(f"GUARDED_KEY={HUSH}1\n")
    (tmp_path / "a.toml").write_text(f'key = "{HUSH}2"\nlogin = {{user = "me", password = "{HUSH}3"}}\n')
    with pytest.warns(TooLate) as late:
        own.load(dotenv=tmp_path / ".env", file=tmp_path / "a.toml")
    monkeypatch.setenv("GUARDED_KEY", f"{HUSH}4")
    monkeypatch.setenv("OLD_KEY", f"{HUSH}5")
    with pytest.warns(TooLate):
        assert own.key.get_secret_value() == f"{HUSH}4"
    with pytest.warns(TooLate):
        own.set(key=f"{HUSH}6", raw=f"{HUSH}7".encode())
    with own.override(key=f"{HUSH}8", login={"user": "me", "password": f"{HUSH}9"}) as _, own.record_reads() as reads:
        assert own.login.password.get_secret_value() == f"{HUSH}9"
        told += [own.explain("key"), str(own.explain("key")), own.explain("login"), own.explain("raw")]
        told += [json.dumps(dataclasses.asdict(own.explain("key"))), reads.reads, own.snapshot()]
        told += [guard.changes(), reads.guard().values]
    told += [own.history(), [str(it) for it in own.history()], late[0].message, own._state.loaded]
    assert len(told) > 10
    assert HUSH not in "\n".join(repr(it) for it in told)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("key", f"{HUSH} bad"),
        ("login", f'{{"password": "{HUSH}", "nope": '),
        ("login", f'["{HUSH}"]'),
        ("number", HUSH),
    ],
)
def test_no_error_has_the_secret(monkeypatch, tmp_path, name, given):
    """Whoever refuses it, and wherever it comes from: the error names the setting and the place alone."""
    own = _fresh()
    monkeypatch.setenv(f"GUARDED_{name.upper()}", given)
    errors = []
    for attempt in (
        lambda: getattr(own, name),
        lambda: own.explain(name),
        own.snapshot,
        Guarded,
        lambda: own.set(**{name: given}),
        lambda: own.override(**{name: given}),
    ):
        with pytest.raises(BadValue) as caught:
            attempt()
        errors.append(caught.value)
    (tmp_path / ".env").write_text(f"GUARDED_{name.upper()}='{given}'\n")
    with pytest.raises(BadValue) as caught:
        own.load(dotenv=tmp_path / ".env")
    errors.append(caught.value)
    for error in errors:
        assert HUSH not in str(error) + repr(error.__dict__) + repr(error.__cause__)
        assert "is refused by its type" in str(error)


def test_a_child_gets_the_secret_and_a_refusal_does_not_tell_it(monkeypatch):
    """A child process needs the value; an error message does not."""
    own = _fresh()
    with own.override(key=HUSH, raw=HUSH.encode()):
        carried = own.child_env({})
    assert carried == {"GUARDED_KEY": HUSH, "GUARDED_RAW": HUSH}
    with (
        own.override(login=Login(password=SecretStr(HUSH))),
        pytest.raises(SettingError, match="login='\\*\\*") as caught,
    ):
        own.child_env({})
    assert HUSH not in str(caught.value)


def test_a_converted_secret_is_not_in_the_advice(monkeypatch):
    """The warning about an old name tells the new name, and not its value."""

    class Converted(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="CONVERTED_")

        key: SecretStr = setting(
            SecretStr(""),
            deprecated_names=[Renamed("CONVERTED_OLD", "1", "2", old_type=str, convert=str.upper)],
        )

    monkeypatch.setenv("CONVERTED_OLD", HUSH)
    with pytest.warns(FutureWarning, match="use CONVERTED_KEY$"):
        assert live(Converted).key.get_secret_value() == HUSH.upper()


def test_a_default_that_is_a_secret_is_not_in_the_schema():
    """pydantic masks it, and we add nothing."""

    class Defaulted(LiveSettings):
        key: SecretStr = setting(SecretStr(HUSH))
        other: int = Field(default=1)

    assert HUSH not in json.dumps(Defaulted.model_json_schema())
    assert HUSH not in str(live(Defaulted).explain("key"))
