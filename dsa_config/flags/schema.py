"""The JSON Schema of a flag file, for editors, and what JSON types each setting takes in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema

from dsa_config.declare import LiveSettings
from dsa_config.declared import Setting, settings_of
from dsa_config.flags.operators import LARGEST_WEIGHT, OPERATORS, Operator
from dsa_config.tools.export_schema import DIALECT

STATES = ("ENABLED", "DISABLED")
TOP_KEYS = ("$schema", "flags", "$evaluators", "metadata")
FLAG_KEYS = ("state", "variants", "defaultVariant", "targeting", "metadata")

_RULE = {"$ref": "#/$defs/flagd-rule"}
_OPERATION = {"$ref": "#/$defs/flagd-operation"}


def flags_schema(cls: type[LiveSettings]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a file of flags for a settings class, in flagd's format."""
    fields, definitions = _field_schemas(cls)
    flags = {
        name: _flag(setting, fields.get(name, {}))
        for name, setting in settings_of(cls).items()
        if is_flaggable(setting)
    }
    return {
        "$schema": DIALECT,
        "title": f"Feature flags for {cls.__name__}",
        "description": "A flag file in flagd's format: for each setting its variants, and rules that pick one of them.",
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            "flags": {"type": "object", "properties": flags, "additionalProperties": False},
            "$evaluators": {
                "description": 'Rules that flags share: {"$ref": NAME} stands for one.',
                "type": "object",
                "additionalProperties": _OPERATION,
            },
            "metadata": {"$ref": "#/$defs/flagd-metadata"},
        },
        "required": ["flags"],
        "additionalProperties": False,
        "$defs": {**definitions, **_rule_definitions()},
    }


def is_flaggable(setting: Setting) -> bool:
    """Whether a flag file may have the setting: a secret has no place in one."""
    return not getattr(setting, "secret", False)


def json_types(cls: type[LiveSettings]) -> dict[str, frozenset[str]]:
    """The JSON types that each field takes; none where the field's schema does not tell."""
    fields, definitions = _field_schemas(cls)
    return {name: _types(fields.get(name, {}), definitions) for name in settings_of(cls)}


def type_in_json(given: object) -> str:
    """The JSON type of a value that came out of a JSON parser."""
    match given:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _field_schemas(cls: type[LiveSettings]) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        document = cls.model_json_schema()
    except PydanticInvalidForJsonSchema:  # some field's type has none; its parser judges then, without our help
        return {}, {}
    return document.get("properties", {}), document.get("$defs", {})


def _types(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> frozenset[str]:
    if "$ref" in schema:
        return _types(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "type" in schema:
        told = schema["type"]
        return frozenset([told] if isinstance(told, str) else told)
    if "enum" in schema or "const" in schema:
        return frozenset(type_in_json(value) for value in schema.get("enum", [schema.get("const")]))
    members = [_types(member, definitions) for member in schema.get("anyOf", ())]
    return frozenset().union(*members) if all(members) else frozenset()


def _flag(setting: Setting, field: dict[str, Any]) -> dict[str, Any]:
    value = {key: said for key, said in field.items() if not key.startswith("x-")}
    for key in ("default", "title", "description"):
        value.pop(key, None)
    return {
        "description": setting.description,
        "type": "object",
        "properties": {
            "state": {"$ref": "#/$defs/flagd-state"},
            "variants": {
                "description": "The values that the flag can give, by name.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"minLength": 1},
                "additionalProperties": value,
            },
            "defaultVariant": {"$ref": "#/$defs/flagd-default-variant"},
            "targeting": {"$ref": "#/$defs/flagd-targeting"},
            "metadata": {"$ref": "#/$defs/flagd-metadata"},
        },
        "required": ["state", "variants"],
        "additionalProperties": False,
    }


def _rule_definitions() -> dict[str, Any]:
    operations: dict[str, Any] = {name: _arguments(operator) for name, operator in OPERATORS.items()}
    operations["fractional"] = {
        "description": "A split by weights: what is hashed (left out: the targetingKey), then [variant, weight].",
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": [{"$ref": "#/$defs/flagd-fraction"}, _OPERATION, {"type": ["string", "number", "boolean"]}]},
    }
    operations["$ref"] = {"description": "The name of a rule in $evaluators.", "type": "string"}
    weight = {"type": "integer", "minimum": 0, "maximum": LARGEST_WEIGHT}
    return {
        "flagd-state": {"description": "DISABLED: the flag says nothing.", "enum": list(STATES)},
        "flagd-default-variant": {
            "description": "The variant where no rule names one. Without it the flag says nothing then.",
            "type": ["string", "null"],
        },
        "flagd-metadata": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        "flagd-targeting": {
            "description": "The rule that names a variant, in JSON logic.",
            "anyOf": [{"type": "object", "maxProperties": 0}, _OPERATION],
        },
        "flagd-rule": {
            "anyOf": [
                _OPERATION,
                {"type": ["string", "number", "boolean", "null"]},
                {"type": "array", "items": _RULE},
            ]
        },
        "flagd-operation": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": operations,
            "additionalProperties": False,
        },
        "flagd-fraction": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "prefixItems": [_RULE, {"anyOf": [weight, _OPERATION]}],
        },
    }


def _arguments(operator: Operator) -> dict[str, Any]:
    several: dict[str, Any] = {"type": "array", "items": _RULE, "minItems": operator.least}
    if operator.most is not None:
        several["maxItems"] = operator.most
    if operator.least > 1:
        return several
    return {"anyOf": [several, {"type": ["string", "number", "boolean", "null"]}, _OPERATION]}
