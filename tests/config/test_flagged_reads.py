"""Settings that a feature flag decides: the layer below the config file, in the context of who asks."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from own_settings import own
from pydantic_settings import SettingsConfigDict

from dsa_config import BadValue, LiveSettings, SettingError, setting
from dsa_config.flags import FlagFileError


class Flagged(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="FLAGGED_")

    fast: bool = setting(False)
    size: int = setting(1, ge=0)
    tags: list[str] = setting([])


def _flag(variants: dict[str, Any], default: str | None, targeting: Any = None) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": variants, "defaultVariant": default, "targeting": targeting or {}}


BY_LAYER = {"if": [{">=": [{"var": "layer"}, 10]}, "on", "off"]}


@pytest.fixture
def flagged(tmp_path):
    """A live object with a flag file."""
    live_object = own(Flagged)
    path = tmp_path / "flags.json"
    flags = {
        "fast": _flag({"on": True, "off": False}, "off", BY_LAYER),
        "size": _flag({"small": 2, "big": 9}, "big"),
        "tags": _flag({"a": ["x"]}, "a"),
    }
    path.write_text(json.dumps({"flags": flags}, indent=1))
    live_object.load(flags=path)
    return live_object


def test_a_flag_is_a_layer_above_the_default(flagged, monkeypatch, tmp_path):
    """Weaker than the config file and all above it; explain tells rule, variant and reason."""
    assert (flagged.size, flagged.fast) == (9, False)
    it = flagged.explain("size")
    assert it.source == "flag"
    assert it.origin.startswith(f"flag size in {tmp_path / 'flags.json'}:")
    assert "variant 'big'" in it.origin
    monkeypatch.setenv("FLAGGED_SIZE", "5")
    assert flagged.size == 5
    assert [layer.source for layer in flagged.explain("size").layers] == ["environment", "flag", "default"]
    monkeypatch.delenv("FLAGGED_SIZE")
    (tmp_path / "a.toml").write_text("size = 4")
    flagged.load(file=tmp_path / "a.toml", flags=tmp_path / "flags.json")
    assert flagged.size == 4


def test_the_context_of_a_scope_decides(flagged):
    """It adds to the context around it, holds in this context alone, and ends with its scope."""
    assert flagged.fast is False
    with flagged.flag_context(layer=12):
        assert flagged.fast is True
        assert "TARGETING_MATCH" in flagged.explain("fast").origin
        with flagged.flag_context(rank=1):
            assert flagged.fast is True
        with flagged.flag_context(layer=3):
            assert flagged.fast is False
        seen = []
        thread = threading.Thread(target=lambda: seen.append(flagged.fast))
        thread.start()
        thread.join()
        assert seen == [False]
        assert flagged.snapshot().fast is True
        with flagged.override(fast=False):
            assert flagged.fast is False
    assert flagged.fast is False


def test_stronger_layers_hide_the_flag_in_every_context(flagged, monkeypatch):
    """Also when they come and go while a context is open."""
    with flagged.flag_context(layer=12):
        assert flagged.fast is True
        monkeypatch.setenv("FLAGGED_FAST", "0")
        assert flagged.fast is False
        assert flagged.fast is False
        monkeypatch.delenv("FLAGGED_FAST")
        assert flagged.fast is True
        flagged.set(fast=False)
        assert flagged.fast is False
        flagged.reset()
        assert flagged.fast is True
        assert flagged.size == 9


def test_the_context_of_the_process(flagged):
    """It is what scopes add to, and a change of it is a change of the flags' values."""
    assert flagged.fast is False
    flagged.set_flag_context(layer=11)
    assert flagged.fast is True
    assert [(it.name, it.new) for it in flagged.history()][-1] == ("fast", True)
    with flagged.flag_context(layer=2):
        assert flagged.fast is False
    with flagged.flag_context(other=2):
        assert flagged.fast is True
    with pytest.raises(SettingError, match="layer"):
        flagged.set_flag_context(layer=object())


def test_a_recording_notes_flagged_values(flagged):
    """The value that the context gave."""
    with flagged.flag_context(layer=12), flagged.record_reads() as recorded:
        assert flagged.fast is True
    assert dict(recorded.reads) == {"fast": True}


def test_a_bad_flag_file_is_refused_whole(flagged, tmp_path):
    """The flags that were there stay."""
    (tmp_path / "flags.json").write_text(json.dumps({"flags": {"size": _flag({"small": -2}, "small")}}))
    with pytest.raises(FlagFileError, match="size"):
        flagged.reload()
    assert flagged.size == 9


def test_a_rule_that_fails_is_an_error_of_the_read_in_its_context(flagged, tmp_path):
    """Other contexts and stronger layers are not touched by it."""
    rule = {"if": [{"==": [{"var": "layer"}, 1]}, {"var": "variant"}, "on"]}
    flags = {"fast": _flag({"on": True, "off": False}, "off", rule)}
    (tmp_path / "flags.json").write_text(json.dumps({"flags": flags}))
    flagged.reload()
    assert flagged.fast is True
    with flagged.flag_context(layer=1, variant="nonsense"):
        with pytest.raises(BadValue, match="fast"):
            flagged.fast  # noqa: B018
        with flagged.override(fast=False):
            assert flagged.fast is False


def test_a_flagged_list_is_a_copy(flagged):
    """Nobody changes the flag by changing its value."""
    flagged.tags.append("y")
    with flagged.flag_context(layer=1):
        flagged.tags.append("z")
    assert flagged.tags == ["x"]


def test_a_flag_that_looks_at_the_time_is_asked_at_every_read(flagged, tmp_path, monkeypatch):
    """Its value changes although nothing is written."""
    rule = {"if": [{">": [{"var": "$flagd.timestamp"}, 2_000_000_000]}, "on", "off"]}
    (tmp_path / "flags.json").write_text(
        json.dumps({"flags": {"fast": _flag({"on": True, "off": False}, "off", rule)}})
    )
    flagged.reload()
    assert flagged.fast is False
    monkeypatch.setattr("time.time", lambda: 2_000_000_001)
    assert flagged.fast is True


def test_a_flag_with_nothing_to_say_leaves_the_default(flagged, tmp_path):
    """In the process and in a context."""
    flags = {"size": {**_flag({"big": 9}, "big"), "state": "DISABLED"}}
    (tmp_path / "flags.json").write_text(json.dumps({"flags": flags}))
    flagged.reload()
    assert flagged.size == 1
    with flagged.flag_context(layer=1):
        assert flagged.size == 1
        assert flagged.explain("size").source == "default"


def test_sealed_reads_of_flagged_settings_are_live(flagged):
    """The context decides there too."""
    hot = flagged.sealed()
    with flagged.flag_context(layer=12):
        assert hot.fast is True
    assert hot.fast is False


def test_an_openfeature_client_is_a_source(flagged):
    """Its flags are asked in the context of who reads; a change at the server is seen without a reload."""
    from openfeature import api
    from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

    from dsa_config.flags.client import ClientFlags

    variants = {"small": 2, "big": 9}
    api.set_provider_and_wait(InMemoryProvider({"size": InMemoryFlag("small", variants)}), "flagged reads")
    client = ClientFlags(api.get_client("flagged reads"), type(flagged.snapshot()), ["size"])
    try:
        flagged.load(flags=client)
        assert flagged.size == 2
        assert "small" in flagged.explain("size").origin
        api.set_provider_and_wait(InMemoryProvider({"size": InMemoryFlag("big", variants)}), "flagged reads")
        client.changed()
        assert flagged.size == 9
        with flagged.flag_context(layer=1):
            assert flagged.size == 9
    finally:
        client.close()
        api.clear_providers()
