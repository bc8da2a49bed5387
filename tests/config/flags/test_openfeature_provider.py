"""Our settings through an OpenFeature client."""

from __future__ import annotations

import contextlib
import enum
import importlib
import pathlib
import sys
import threading

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from dsa_config import LiveSettings, live, setting, settings
from dsa_config.flags import FlagContext, FlagsExtraMissing, provider
from dsa_config.flags.provider import SettingsProvider


class Colour(enum.Enum):
    RED = "red"


class Served(LiveSettings):
    on: bool = setting(False, env="SERVED_ON")
    count: int = setting(1)
    share: float = setting(0.5)
    limit: float | None = setting(None)
    word: str = setting("a")
    colour: Colour = setting(Colour.RED)
    place: pathlib.Path = setting(pathlib.Path("/tmp"))
    sizes: tuple[int, ...] = setting((1, 2))
    table: dict[str, list[int]] = setting({"a": [1]})


@pytest.fixture
def client():
    """A client of the live object `Served`."""
    api.set_provider_and_wait(SettingsProvider(live(Served)), "served")
    yield api.get_client("served")
    live(Served).reset()
    api.shutdown()


def test_every_type(client):
    """Each field is served by the getter of its type; what has no type of its own in JSON, as JSON writes it."""
    assert client.get_boolean_value("on", True) is False
    assert client.get_integer_value("count", 9) == 1
    assert client.get_float_value("share", 9.0) == 0.5
    assert repr(client.get_float_value("count", 9.0)) == "1.0"
    assert client.get_string_value("word", "z") == "a"
    assert client.get_string_value("colour", "z") == "red"
    assert client.get_string_value("place", "z") == "/tmp"
    assert client.get_object_value("sizes", []) == [1, 2]
    assert client.get_object_value("table", {}) == {"a": [1]}


def test_where_a_value_comes_from(client, monkeypatch):
    """Reason, variant and metadata tell the layer that won."""
    served = live(Served)

    def told() -> tuple:
        found = client.get_boolean_details("on", False)
        assert found.flag_metadata == {
            "setting": "on",
            "source": found.variant,
            "origin": served.explain("on").origin,
        }
        return found.value, found.reason, found.variant

    assert told() == (False, Reason.DEFAULT, "default")
    monkeypatch.setenv("SERVED_ON", "yes")
    assert told() == (True, Reason.STATIC, "environment")
    served.set(on=False)
    assert told() == (False, Reason.STATIC, "set")
    with served.override(on=True):
        assert told() == (True, Reason.STATIC, "override")
    assert client.get_boolean_details("SERVED_ON", True).flag_metadata["setting"] == "on"


def test_a_flag_is_a_targeting_match():
    """A value that depends on who asks says so."""
    assert provider._reason("flag") is Reason.TARGETING_MATCH
    assert provider._reason("file") is Reason.STATIC


def test_none_leaves_the_callers_default(client):
    """OpenFeature has no None: the default stands and the reason says so; the type is checked all the same."""
    found = client.get_float_details("limit", 0.25)
    assert (found.value, found.reason, found.variant, found.error_code) == (0.25, Reason.DEFAULT, None, None)
    assert found.flag_metadata["source"] == "default"
    assert client.get_boolean_details("limit", True).error_code == ErrorCode.TYPE_MISMATCH
    live(Served).set(limit=2)
    assert client.get_float_value("limit", 0.25) == 2.0


@pytest.mark.parametrize(
    ("getter", "name", "default", "code", "words"),
    [
        ("boolean", "count", True, ErrorCode.TYPE_MISMATCH, "count=1 is not of type boolean, but integer"),
        ("integer", "on", 3, ErrorCode.TYPE_MISMATCH, "on=False is not of type integer, but boolean"),
        ("integer", "share", 3, ErrorCode.TYPE_MISMATCH, "share=0.5 is not of type integer, but number"),
        ("string", "sizes", "", ErrorCode.TYPE_MISMATCH, "not of type string, but array"),
        ("object", "word", {}, ErrorCode.TYPE_MISMATCH, "not of type object or array, but string"),
        ("float", "word", 3.0, ErrorCode.TYPE_MISMATCH, "not of type integer or number, but string"),
        ("boolean", "onn", True, ErrorCode.FLAG_NOT_FOUND, "'onn' is not a setting of Served; did you mean on"),
    ],
)
def test_mistakes(client, getter, name, default, code, words):
    """A wrong type and an unknown name are errors that say what is there, and the caller's default stands."""
    found = getattr(client, f"get_{getter}_details")(name, default)
    assert (found.value, found.error_code) == (default, code)
    assert words in found.error_message


def test_a_value_that_cannot_be_read(client, monkeypatch):
    """A bad text in the environment is an error of the flag, with our sentence."""
    monkeypatch.setenv("SERVED_ON", "perhaps")
    found = client.get_boolean_details("on", True)
    assert (found.value, found.error_code) == (True, ErrorCode.PARSE_ERROR)
    assert "SERVED_ON='perhaps' (from environment variable SERVED_ON): is not a boolean" in found.error_message


def test_secrets_are_not_served(client, monkeypatch):
    """A secret is no flag."""
    monkeypatch.setattr(provider, "is_flaggable", lambda it: it.name != "word")
    found = client.get_string_details("word", "z")
    assert (found.value, found.error_code) == ("z", ErrorCode.FLAG_NOT_FOUND)


def test_changes_are_told(client):
    """changed() reaches the client's handlers with the names, and is no error while no client listens."""
    heard, names = threading.Event(), []

    def on_change(details) -> None:
        names.extend(details.flags_changed)
        heard.set()

    client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, on_change)
    client.provider.changed(["on", "count"])
    assert heard.wait(30)
    assert names == ["on", "count"]
    SettingsProvider(live(Served)).changed(["on"])


def test_the_context_of_the_call():
    """With `within`, settings are read in a scope for the call's context; without it the context means nothing."""
    seen = []

    @contextlib.contextmanager
    def within(context: FlagContext):
        seen.append(context)
        with live(Served).override(on=context.get("layer") == 3):
            yield

    served = SettingsProvider(live(Served), within=within)
    assert served.resolve_boolean_details("on", False).value is False
    assert seen == []
    assert served.resolve_boolean_details("on", False, EvaluationContext("r1", {"layer": 3})).value is True
    assert served.resolve_boolean_details("on", False, EvaluationContext(None, {"layer": 4})).value is False
    assert seen == [FlagContext(targetingKey="r1", layer=3), FlagContext(layer=4)]
    assert SettingsProvider(live(Served)).resolve_boolean_details("on", True, EvaluationContext("r")).value is False
    api.set_provider_and_wait(served, "within")
    found = api.get_client("within").get_boolean_details("on", True, EvaluationContext(None, {"layer": object()}))
    assert found.error_code == ErrorCode.INVALID_CONTEXT
    assert "evaluation context, 'layer'" in found.error_message
    api.shutdown()


def test_the_projects_settings_are_served():
    """The live object of DeepSeek Sparse Attention, under its class's name."""
    served = SettingsProvider(settings)
    assert served.get_metadata().name == "DSASettings"
    assert served.resolve_string_details("SGLANG_DSA_TOPK_BACKEND", "").value == "auto"


def test_without_the_sdk(monkeypatch):
    """Importing the provider without OpenFeature says what to install."""
    monkeypatch.setitem(sys.modules, "openfeature.event", None)
    monkeypatch.delitem(sys.modules, "dsa_config.flags.provider")
    with pytest.raises(FlagsExtraMissing, match=r"need openfeature-sdk, .*: pip install 'dsa\[flags\]'"):
        importlib.import_module("dsa_config.flags.provider")
