"""The docstrings under a class's fields, read from its source when somebody asks.

pydantic can do this (`use_attribute_docstrings`), but does it while the class is made: for the settings of this project
that would double the cost of `import dsa_config`.
"""

from __future__ import annotations

import functools


@functools.cache
def field_docstrings(cls: type) -> dict[str, str]:
    """The docstring of each field that has one, by name, in the class or a base; none where there is no source."""
    import ast
    import inspect
    import itertools
    import textwrap

    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError, SyntaxError, IndexError):
            continue
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, after in itertools.pairwise(statements):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found[field.target.id] = inspect.cleandoc(after.value.value)
    return found
