"""Why a setting has the value that it has: the winning layer, every losing one, and what is wrong with the names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dsa_config.errors import BadValue
from dsa_config.layers import Layer
from dsa_config.lifecycle import in_force, warnings_about
from dsa_config.names import conflict_of
from dsa_config.read import Reader
from dsa_config.sources import env


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer's word on a setting.

    Attributes:
        source: override, set, environment, dotenv, secrets, cloud, file, flag or default.
        origin: where it came from, in words.
        given: the text or value as it was given.
        value: what the field makes of it; None where it makes nothing of it.
        error: why it makes nothing of it, or None.
    """

    source: str
    origin: str
    given: Any
    value: Any
    error: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer about one setting.

    Attributes:
        name: the field.
        value: its value as of now, in this context.
        source: the winning layer: override, set, environment, dotenv, secrets, cloud, file, flag or default.
        origin: where the value came from, in words.
        layers: every layer that has a word on it, strongest first; the first one wins.
        warnings: deprecated names in use and conflicts, in words.
        conflict: None, or the names that are set to different text, each with its text, winner first: of the
            strongest source that has such names.
    """

    name: str
    value: Any
    source: str
    origin: str
    layers: tuple[LayerReport, ...]
    warnings: tuple[str, ...]
    conflict: dict[str, str] | None

    def __str__(self) -> str:
        lines = [f"{self.name} = {self.value!r}, from {self.origin}"]
        for rank, layer in enumerate(self.layers):
            verdict = "wins" if rank == 0 else "loses"
            told = f" (which {layer.error})" if layer.error else ""
            lines.append(f"  {verdict:5} {layer.source}: {layer.given!r} from {layer.origin}{told}")
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])


def explain(reader: Reader) -> Explanation:
    """Explain one setting as it is now, in this context.

    Raises:
        BadValue: the winning layer's text is not a value of the setting.
    """
    layers = reader.layers()
    setting, policy = reader.setting, reader.state.policy
    value = layers[0].read()
    words = [env.words_in(setting), *reader.state.loaded_words(setting.name)]
    conflict = next((found for it in words if (found := conflict_of(in_force(it, policy)))), None)
    warnings = [told for it in words for told in warnings_about(it, policy)]
    return Explanation(
        name=setting.name,
        value=setting.masked(value),
        source=layers[0].source,
        origin=str(layers[0].origin),
        layers=tuple(_report(layer) for layer in layers),
        warnings=(*dict.fromkeys(warnings), *reader.state.moments.late(setting.name)),
        conflict={name: setting.masked(given) for name, given in conflict.items()} if conflict else None,
    )


def _report(layer: Layer) -> LayerReport:
    value, error = None, None
    try:
        value = layer.setting.masked(layer.read())
    except BadValue as bad:
        error = bad.reason
    return LayerReport(layer.source, str(layer.origin), layer.setting.masked(layer.given), value, error)
