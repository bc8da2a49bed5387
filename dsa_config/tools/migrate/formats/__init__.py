"""The readers, one file per format. A reader is imported when a file of its kind mentions an old name."""

from __future__ import annotations

import importlib
from typing import Literal, cast

from dsa_config.tools.migrate.errors import ExtraMissing
from dsa_config.tools.migrate.sites import Reader

Kind = Literal["dotenv", "environment", "shell", "dockerfile", "yaml", "json", "systemd", "toml", "python"]

PACKAGES: dict[Kind, dict[str, str]] = {
    "dotenv": {"dotenv": "python-dotenv"},
    "shell": {"tree_sitter": "tree-sitter", "tree_sitter_bash": "tree-sitter-bash"},
    "dockerfile": {"tree_sitter": "tree-sitter", "tree_sitter_bash": "tree-sitter-bash"},
    "yaml": {"ruamel.yaml": "ruamel.yaml"},
    "python": {"libcst": "libcst"},
}
"""The modules that a reader imports, and the packages that have them."""


def reader_of(kind: Kind) -> Reader:
    """The function that reads files of a kind.

    Raises:
        ExtraMissing: its parser is not installed.
    """
    for module, package in PACKAGES.get(kind, {}).items():
        try:
            importlib.import_module(module)
        except ImportError:
            raise ExtraMissing(package, kind) from None
    return cast(Reader, importlib.import_module(f"{__name__}.{kind}").read)
