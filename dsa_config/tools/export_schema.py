"""The JSON Schema of a config file, as `sources/file.py` reads it: for editors, and for checks before a deployment."""

from __future__ import annotations

from typing import Any

from dsa_config.declare import LiveSettings
from dsa_config.declared import Setting, settings_of
from dsa_config.grammar import ChoicesOf
from dsa_config.policy import policy_of
from dsa_config.renames import Deprecated, Merged, phase_of
from dsa_config.sources.file import INCLUDE, PROFILE, PROFILES, SCHEMA

DIALECT = "https://json-schema.org/draft/2020-12/schema"

OWN_KEYS: dict[str, dict[str, Any]] = {
    SCHEMA: {"description": "Where this schema is, for editors. It has no effect.", "type": "string"},
    INCLUDE: {
        "description": "Config files to build on, by path, relative to this file; this file is stronger than they are, "
        "and of several the last is strongest.",
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}},
        ],
    },
    PROFILE: {"description": "The profile to use where none is asked for.", "type": "string", "minLength": 1},
}
"""What a config file has beside settings and profiles."""

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def settings_schema(cls: type[LiveSettings]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a config file.

    Keys are field names; environment names are annotations. Values have types: a text that the reader would take for a
    boolean or a number is no mistake of the file's, but editors mark it.
    """
    document = cls.model_json_schema()
    # The dialect stands first, where people look for it.
    document = {"$schema": DIALECT, **document, "description": f"A config file for {document['title']}."}
    fields: dict[str, Any] = document["properties"]
    for name, field in fields.items():
        _extend(cls, name, field)
    old = _old_names(cls)
    profile = {
        "type": "object",
        "properties": {name: {"$ref": f"#/properties/{name}"} for name in [*fields, *old]},
        "additionalProperties": False,
    }
    profiles = {
        "description": "Named sets of settings; the one that is chosen is stronger than the rest of its file.",
        "type": "object",
        "additionalProperties": profile,
    }
    document["properties"] = {**OWN_KEYS, PROFILES: profiles, **fields, **old}
    return document


def _extend(cls: type[LiveSettings], name: str, field: dict[str, Any]) -> None:
    """What pydantic does not know of a field: choices that are looked up, and `none`, for which TOML has no word."""
    setting = settings_of(cls)[name]
    field["description"] = setting.description
    choices = next((it for it in cls.model_fields[name].metadata if isinstance(it, ChoicesOf)), None)
    if choices is not None:
        field.pop("pattern", None)
        field["enum"] = list(choices.names())
    if {"type": "null"} in field.get("anyOf", ()):
        field["anyOf"].append({"const": "none", "description": "The same as null."})
    if setting.introduced is not None:
        field["x-introduced"] = setting.introduced


def _old_names(cls: type[LiveSettings]) -> dict[str, dict[str, Any]]:
    """The deprecated names that a file may still have as keys."""
    version = policy_of(cls).version
    found: dict[str, dict[str, Any]] = {}
    for setting in settings_of(cls).values():
        for entry in setting.deprecated:
            if version is None or phase_of(entry, version) in ("current", "deprecated"):
                for name, schema in zip(entry.names, _old_schemas(entry, setting), strict=True):
                    said = f"Deprecated since {entry.since}, removed in {entry.remove_in}: use {setting.name}."
                    found.setdefault(name, {"description": said, "deprecated": True, **schema})
    return found


def _old_schemas(entry: Deprecated, setting: Setting) -> list[dict[str, Any]]:
    """What each old name takes: what the setting takes, or a plain value where its meaning changed."""
    kinds = entry.old_types if isinstance(entry, Merged) else (entry.old_type,)
    return [{"$ref": f"#/properties/{setting.name}"} if kind is None else {"type": _JSON_TYPES[kind]} for kind in kinds]
