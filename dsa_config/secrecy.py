"""Which types hold secrets: pydantic's own secret types, at any depth that arguments and fields show."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr


def holds_secrets(kind: Any) -> bool:
    """Whether values of a type have a secret in them."""
    seen: set[int] = set()
    waiting = [kind]
    while waiting:
        kind = waiting.pop()
        if id(kind) in seen:
            continue
        seen.add(id(kind))  # a model may refer to itself
        origin = typing.get_origin(kind) or kind
        if isinstance(origin, type):
            if issubclass(origin, (Secret, SecretStr, SecretBytes)):
                return True
            if issubclass(origin, BaseModel):
                waiting += [field.annotation for field in origin.model_fields.values()]
            elif dataclasses.is_dataclass(origin):
                waiting += typing.get_type_hints(origin).values()
        waiting += typing.get_args(kind)
        waiting += [getattr(kind, "__supertype__", None), getattr(kind, "__value__", None)]
    return False
