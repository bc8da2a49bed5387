"""What editors and type checkers are told of the live object is what it has."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import dsa_config
from dsa_config.live import METHODS, Live


def _stub() -> dict[str, ast.FunctionDef]:
    source = Path(dsa_config.__file__).with_name("surface.pyi").read_text(encoding="utf-8")
    (surface,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {node.name: node for node in surface.body if isinstance(node, ast.FunctionDef)}


def test_the_stub_has_every_method_of_the_live_object():
    """No more and no fewer."""
    assert set(_stub()) == set(METHODS)


def test_the_stub_has_every_source_that_load_takes():
    """load() takes them as keywords, which the stub spells out."""
    from dataclasses import fields

    from dsa_config.loading import Sources

    named = [argument.arg for argument in _stub()["load"].args.kwonlyargs]
    assert named == [it.name for it in fields(Sources)]
    for name in named:
        assert name in (inspect.getdoc(Live.load) or "")


def test_every_method_is_described():
    """help(settings) tells what each does, and what each setting is for."""
    for name in METHODS:
        assert inspect.getdoc(getattr(Live, name))
    assert "fuse_topk" in dir(dsa_config.settings)
    assert (type(dsa_config.settings).fuse_topk.__doc__ or "").startswith("Run top-k and the page-table transform")
