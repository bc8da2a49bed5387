"""JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from migrations import (
    HOSTILE,
    NEW,
    OLD,
    canonical_leaves,
    expect_by_hand,
    expect_renamed,
    expect_safe,
    migrated,
    texts_of,
)

from dsa_config.tools.migrate.errors import Unparsable


@pytest.mark.parametrize(
    "text",
    [
        '{"env": {"@": "0"}}',
        '{"env": [{"name": "@", "value": "0"}, "@=1", "@"], "x": [1, null, {}, []]}\n',
        '{\r\n\t"args": ["\\n@=1", "$(@)", "\\"@\\"", "\\u0022${@}\\u0022"]}',
        '["@"]',
        '"@"',
    ],
)
def test_names_are_renamed_in_place(text):
    """Keys, pairs, entries, and names next to escapes."""
    expect_renamed("json", text.replace("@", OLD), text.replace("@", NEW))


def test_values_change_with_their_names():
    """Each keeps its type."""
    expect_renamed("json", '{"WAIT_MS": 1500, "DISABLE_IT": "1"}', '{"WAIT_S": 1.5, "ENABLE_IT": "0"}')
    expect_renamed("json", '{"WAIT_MS": "1500", "DISABLE_IT": true}', '{"WAIT_S": "1.5", "ENABLE_IT": false}')


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"@": "1", "SGLANG_DSA_FUSE_TOPK": "1"}', "to the same text"),
        ('{"@": "1", "SGLANG_DSA_FUSE_TOPK": "0"}', "a conflict"),
        ('{"WAIT_MS": [1]}', "no literal"),
        ('{"note": "about @"}', "does not understand"),
        ('{"a": "@\\u0041"}', "expects no name"),
        ('{"a": "x; \\u0053GLANG_NSA_FUSE_TOPK=1 @_A @"}', "escapes or line ends stand within it"),
    ],
)
def test_what_a_tool_cannot_do_is_reported(text, part):
    """The file stays, and a sentence says why."""
    expect_by_hand("json", text.replace("@", OLD), part)


@pytest.mark.parametrize(
    "text", ['{"@": 1,}', '// c\n{"@": 1}', "@", '["@", ' + "9" * 5000 + "]", "[" * 100_000 + '"@"']
)
def test_a_broken_file_is_refused(text):
    """Comments and trailing commas are no JSON; numbers and nesting have limits."""
    with pytest.raises(Unparsable):
        migrated("json", text.replace("@", OLD))


@given(texts_of("{", "}", '"', ":", ",", "[", "]", "\\n", "\\u0041", "1"))
def test_hostile_text(text):
    """Refused, or the same document."""
    expect_safe("json", text, lambda it: canonical_leaves(json.loads(it)))


@given(
    st.recursive(
        st.sampled_from(HOSTILE) | st.text(max_size=5) | st.integers() | st.none(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(HOSTILE) | st.text(max_size=3), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_document(document):
    """No entry is lost, and nothing but names changes."""
    text = json.dumps(document, indent=1)
    expect_safe("json", text, lambda it: canonical_leaves(json.loads(it)))
