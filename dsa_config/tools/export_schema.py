"""The JSON Schema of a settings file."""

from __future__ import annotations

from typing import Any

from dsa_config.declare import LiveSettings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def settings_schema(cls: type[LiveSettings]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a settings file: keys are field names, environment names are annotations."""
    return {"$schema": DIALECT, **cls.model_json_schema()}
