"""YAML: docker compose, Kubernetes manifests, anything else; positions come from ruamel.yaml's composer."""

from __future__ import annotations

import re
from typing import cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as Composed

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.escapes import doubled, unescaped
from dsa_config.tools.migrate.lines import comment_sites
from dsa_config.tools.migrate.mapped import Mapped
from dsa_config.tools.migrate.meaning import meaning_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.sites import Reading
from dsa_config.tools.migrate.tree import Items, Mapping, Node, Scalar, tree_sites

_PROPERTIES = re.compile(r"(?:[&!]\S*(?:\s+|#[^\n]*\n)*)*")
_TEXT = "tag:yaml.org,2002:str"


def read(text: str, names: Names) -> Reading:
    """The sites of a YAML file, of all its documents.

    Raises:
        Unparsable: it is no YAML.
    """
    try:
        documents = [it for it in YAML(typ="safe", pure=True).compose_all(text) if it is not None]
        grown = _Grown(text)
        roots = [grown.node(it) for it in documents]
        sites = tree_sites(roots, names)
        sites += comment_sites(text, sites, names, r"#|[&*](?=\Z)")
        return Reading(sites, meaning_of([_meaning(it, {}) for it in documents]))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unparsable(str(error.problem or error.context), mark.line + 1 if mark else None) from None
    except RecursionError:
        raise Unparsable("it is nested too deeply") from None
    except (YAMLError, ValueError, IndexError, AttributeError, TypeError) as error:
        # What else the composer raises for hostile text is not all of its own types.
        raise Unparsable(" ".join(str(error).split()) or type(error).__name__) from None


class _Grown:
    """Our nodes for composed ones; an alias gives the node of its anchor."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._made: dict[int, Node] = {}

    def node(self, composed: Composed) -> Node:
        if id(composed) not in self._made:
            match composed:
                case MappingNode():
                    self._made[id(composed)] = mapping = Mapping()
                    mapping.pairs.extend((self.node(key), self.node(value)) for key, value in composed.value)
                case SequenceNode():
                    self._made[id(composed)] = items = Items()
                    items.items.extend(self.node(item) for item in composed.value)
                case _:
                    self._made[id(composed)] = self._scalar(cast(ScalarNode, composed))
        return self._made[id(composed)]

    def _scalar(self, composed: ScalarNode) -> Scalar:
        end: int = composed.end_mark.index
        start = _PROPERTIES.match(self._text, composed.start_mark.index, end).end()  # type: ignore[union-attr]
        match composed.style:
            case '"':
                return Scalar(unescaped(self._text, start + 1, end - 1))
            case "'":
                return Scalar(doubled(self._text, start + 1, end - 1))
            case "|" | ">":
                first_line = self._text.find("\n", start, end) + 1 or end
                return Scalar(Mapped.part(self._text, first_line, end))
            case _:
                return Scalar(Mapped.part(self._text, start, end), typed=composed.tag != _TEXT)


def _meaning(node: Composed, numbers: dict[int, int]) -> object:
    """Tags, texts and shape; a node that is met again is told by the number of its first meeting."""
    if id(node) in numbers:
        return numbers[id(node)]
    numbers[id(node)] = len(numbers)
    match node:
        case MappingNode():
            return node.tag, [(_meaning(key, numbers), _meaning(value, numbers)) for key, value in node.value]
        case SequenceNode():
            return node.tag, [_meaning(item, numbers) for item in node.value]
        case _:
            return node.tag, node.value
