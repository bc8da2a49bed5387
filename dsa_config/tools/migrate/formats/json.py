"""JSON: Kubernetes manifests, engine configurations, editor launch files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.escapes import unescaped
from dsa_config.tools.migrate.mapped import Mapped
from dsa_config.tools.migrate.meaning import meaning_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.sites import Reading
from dsa_config.tools.migrate.tree import Items, Mapping, Node, Scalar, tree_sites

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]|[^\s\[\]{}",:]+', re.S)


def read(text: str, names: Names) -> Reading:
    """The sites of a JSON file.

    Raises:
        Unparsable: it is no JSON.
    """
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: {"pairs": pairs})
        meaning = meaning_of(document)
        tokens = _TOKEN.finditer(text)
        sites = tree_sites([_node(text, next(tokens), tokens)], names)
    except json.JSONDecodeError as error:
        raise Unparsable(error.msg, error.lineno) from None
    except ValueError as error:  # a number with too many digits
        raise Unparsable(str(error)) from None
    except RecursionError:
        raise Unparsable("it is nested too deeply") from None
    return Reading(sites, meaning)


def _node(text: str, token: re.Match[str], tokens: Iterator[re.Match[str]]) -> Node:
    """The document that starts with a token. The parser has seen the text, so that nothing is out of place."""
    match token[0][0]:
        case "{":
            mapping = Mapping()
            while (key := next(tokens))[0] != "}":
                mapping.pairs.append((_node(text, key, tokens), _node(text, next(tokens), tokens)))
            return mapping
        case "[":
            items = Items()
            while (item := next(tokens))[0] != "]":
                items.items.append(_node(text, item, tokens))
            return items
        case '"':
            return Scalar(unescaped(text, token.start() + 1, token.end() - 1))
        case _:
            return Scalar(Mapped.part(text, *token.span()), typed=True)
