"""Reading a model's configuration key by key: every error names the key, its value, the file and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from dsa_exec.core.errors import GeometryError

Choice = TypeVar("Choice", bound=str)

MOST_LAYERS = 10_000
"""More layers than any model has."""


class ConfigKeys:
    """The keys of one configuration. `null` is the same as absent.

    Attributes:
        origin: the file.
        notes: what was found, in sentences.
    """

    def __init__(self, config: Mapping[str, Any], origin: str) -> None:
        self._config = config
        self.origin = origin
        self.notes: list[str] = []
        self._assumed: dict[str, int] = {}

    def all_notes(self) -> tuple[str, ...]:
        """What was found, and a sentence about the keys whose default was taken."""
        if not self._assumed:
            return tuple(self.notes)
        assumed = ", ".join(f"{key} {value}" for key, value in self._assumed.items())
        return (*self.notes, f"{self.origin} lacks keys, for which transformers' defaults count: {assumed}.")

    def get(self, key: str) -> Any:
        """The value, unchecked; None if it is absent."""
        return self._config.get(key)

    def refusal(self, key: str, wanted: str, value: object = None) -> GeometryError:
        """The error about a key.

        Args:
            key: the key.
            wanted: what is allowed.
            value: what to show, if it is not the value of the key.
        """
        return GeometryError(key, self.get(key) if value is None else value, self.origin, wanted)

    def choice(self, key: str, allowed: Sequence[Choice]) -> Choice:
        """A word, one of those allowed.

        Raises:
            GeometryError: it is absent or another.
        """
        value = self.get(key)
        for word in allowed:
            if value == word:
                return word
        raise self.refusal(key, f"one of {', '.join(allowed)}")

    def number(self, key: str, *, low: int, high: int, default: int | None = None) -> int:
        """A whole number.

        Args:
            key: the key.
            low: the least value allowed.
            high: the greatest.
            default: its value if it is absent, of which a note tells; None if it must be there.

        Raises:
            GeometryError: it is no integer, or out of range, or absent and must be there.
        """
        value = self.get(key)
        if value is None and default is not None:
            self._assumed[key] = default
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            wanted = f"an integer from {low} to {high}" if low < high else f"{low}, the only value that is supported"
            raise self.refusal(key, wanted)
        return value

    def entries(
        self, key: str, layers: int, draft_layers: int, value: Any = None
    ) -> tuple[list[Any], list[Any]] | None:
        """A list with an entry for each layer, and its entries for draft layers, if it has them.

        Args:
            key: the key.
            layers: layers of the model.
            draft_layers: draft layers of the checkpoint. A list may have entries for all of them, after the layers'.
            value: the list, where the key's value is another way of writing one.

        Returns:
            The layers' entries and the draft layers'; None if the key is absent.

        Raises:
            GeometryError: it is no list, or of another length.
        """
        value = self.get(key) if value is None else value
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise self.refusal(key, f"a list of {layers} entries, one for each of num_hidden_layers")
        with_draft = layers + max(draft_layers, 1)
        if len(value) not in (layers, with_draft):
            wanted = f"{layers}, one for each of num_hidden_layers, or {with_draft} with draft layers"
            raise self.refusal(f"len({key})", wanted, len(value))
        entries, draft = list(value[:layers]), list(value[layers:])
        if draft:
            told = f"{key} of {self.origin} has {len(value)} entries for {layers} layers: "
            what = "the last is the draft layer's" if len(draft) == 1 else f"the last {len(draft)} are draft layers'"
            self.notes.append(told + what + ", and counts only if that layer is loaded.")
        return entries, draft
