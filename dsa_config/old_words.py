"""Words that a field of choices once took: those that mean one of today's choices, and those that mean none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from dsa_config.errors import Rejected


@dataclass(frozen=True, slots=True, eq=False)
class OldWords:
    """Metadata of a Literal of words: `Annotated[Literal["new"], OldWords({"old": "new"}, removed={"older": "..."})]`.

    Attributes:
        means: each old word with the choice that it stands for.
        removed: each word that stands for nothing any more, with what to use instead, in words.
    """

    means: Mapping[str, str]
    removed: Mapping[str, str] = field(default_factory=dict)

    def today(self, value: object) -> object:
        """What is given, in the words of today.

        Raises:
            Rejected: a word that was removed.
        """
        word = value.strip() if isinstance(value, str) else ""
        if word in self.removed:
            raise Rejected(f"was removed, use {self.removed[word]}")
        return self.means.get(word, value)

    def __str__(self) -> str:
        """The old words and what each means: `old (new)`."""
        return ", ".join(f"{word} ({choice})" for word, choice in self.means.items())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        document = handler(schema)
        choices = [document.pop("const")] if "const" in document else document["enum"]
        return {**document, "enum": [*choices, *self.means], "x-old-words": dict(self.means)}
