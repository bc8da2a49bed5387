"""YAML: compose files, Kubernetes manifests and others."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from migrations import NEW, OLD, canonical_leaves, expect_by_hand, expect_renamed, expect_safe, migrated, texts_of

from dsa_config.tools.migrate.errors import Unparsable

PLACES = [
    "environment:\n  @: '0'  # why\n  B: 1\n",
    "environment:\n- @=0\n- '@'\n- \"@=a b\"\n",
    "env:\n  - name: @\n    value: \"0\"\n  - {name: '@', value: x}\n",
    "env:\n  - name: @\n    valueFrom: {fieldRef: {fieldPath: x}}\n",
    "kind: ConfigMap\ndata:\n  @: '1'\n  app.env: |\n    @=1\n    B=2\n",
    "base: &base\n  '@': 1\nother:\n  <<: *base\n  C: 2\n",
    "a: &x {@: 1}\nb: *x\nc:\n  <<: [*x]\n",
    "a: &@X !!str 'b'\nb: &y\n  ${@:-1}\n",
    "args: ['$(@)', \"x\\n@=1\", 'it''s $@', \"$$@\"]\n",
    "script: >-\n  export A=1\n  @=0 serve\n\n# the end\n",
    "? @\n: 1\n---\n@: 2\n...\n",
    "? [a, b]\n: ${@}\n",
    "\r\nenvironment:\r\n  @: 0\r\n",
    "data: {@: x}\nenv:\n- name: A\n  valueFrom: {configMapKeyRef: {name: m, key: @}}\n",
    "@: é\nkind: 5\n",
]


@pytest.mark.parametrize("text", PLACES)
def test_names_are_renamed_in_place(text):
    """Keys, lists, name-and-value pairs, merged mappings, block scalars, quoted and escaped text, several documents."""
    expect_renamed("yaml", text.replace("&@X", "&x").replace("@", OLD), text.replace("&@X", "&x").replace("@", NEW))


def test_comments_and_anchors_are_left():
    """Neither is an environment name."""
    text = f"# {OLD}\na: &{OLD} 1 # {OLD}\nb: *{OLD}\nc: |\n  # {OLD}=1\n"
    assert (migrated("yaml", text).text, migrated("yaml", text).by_hand) == (text, [])


def test_values_change_with_their_names():
    """Numbers stay numbers, booleans booleans, quoted text quoted text."""
    expect_renamed(
        "yaml",
        "a:\n  WAIT_MS: 1500\n  DISABLE_IT: true\nb:\n  - WAIT_MS=2000\n  - {name: DISABLE_IT, value: '1'}\n",
        "a:\n  WAIT_S: 1.5\n  ENABLE_IT: false\nb:\n  - WAIT_S=2\n  - {name: ENABLE_IT, value: '0'}\n",
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: {@: 1, SGLANG_DSA_FUSE_TOPK: 1}", ["to the same text"]),
        ("a: [@=1, SGLANG_DSA_FUSE_TOPK=2]", ["a conflict"]),
        ("e: [{name: @, value: '1'}, {name: SGLANG_DSA_FUSE_TOPK, value: '1'}]", ["to the same text"]),
        ("b: &b {@: 1}\nc: {<<: *b, SGLANG_DSA_FUSE_TOPK: 2}", ["a conflict"]),
        ("b: &b {@: 1}\nc: {<<: [*b], SGLANG_DSA_FUSE_TOPK: [2]}", ["decide which one holds"]),
        ("e: {valueFrom: {secretKeyRef: {name: s, key: @}}}", ["this file does not define"]),
        ("kind: Secret\ndata: {WAIT_MS: MTUwMA==}", ["no literal"]),
        ("e: [{name: WAIT_MS, valueFrom: x}]", ["no literal"]),
        ("e: [WAIT_MS]", ["no literal"]),
        ("e: {WAIT_MS: }", ["cannot be converted"]),
        ("e: {DISABLE_IT: 'odd'}", ["may need quotes"]),
        ("e: {WAIT_MS: $X}", ["no literal"]),
        ('e: {"SGLANG_DSA_FUSE_TOP\\x4b": 1, @: 2}', ["SGLANG_DSA_FUSE_TOPK is set too"]),
        ('e: ["SGLANG_NSA_FUSE_TOP\\x4b=1 and @"]', ["escapes or line ends"]),
        ("text: the @ switch", ["does not understand"]),
        ('e: {"SGLANG_NSA_FUSE_TOP\\x4b": 1, x: "a @\\x41"}', ["escapes or line ends stand within it"]),
        ('e: "@\\x41"', ["expects no name"]),
    ],
)
def test_what_a_tool_cannot_do_is_reported(text, parts):
    """Conflicts within one mapping, list or merge; keys of other objects; encoded and missing values."""
    expect_by_hand("yaml", text.replace("@", OLD), *parts)


def test_two_services_are_no_conflict():
    """Each has its own environment."""
    text = "a: {environment: {@: 1}}\nb: {environment: {SGLANG_DSA_FUSE_TOPK: 0}}\n"
    expect_renamed("yaml", text.replace("@", OLD), text.replace("@", NEW))


@pytest.mark.parametrize(
    "text", ["a: {@: 1", "{{- if @ }}\na: 1\n", "a: *@", "[" * 5000 + "@", "%YAML 9.9.9\n--- @", "a: \x00@"]
)
def test_a_broken_file_is_refused(text):
    """Templates too, which are no YAML."""
    with pytest.raises(Unparsable):
        migrated("yaml", text.replace("@", OLD))


def leaves(text: str) -> object:
    return canonical_leaves([repr_of(node) for node in yaml.compose_all(text, Loader=yaml.SafeLoader)])


def repr_of(node: yaml.Node | None) -> object:
    if isinstance(node, yaml.MappingNode):
        return [[repr_of(key), repr_of(value)] for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [repr_of(item) for item in node.value]
    return None if node is None else node.value


@given(
    texts_of(
        ": ", "- ", "'", '"', " #", "{", "}", "[", "]", ", ", "|\n", "\n  ", "&a ", "*a", "!!str ", "\\", "? ", "---\n"
    )
)
def test_hostile_text(text):
    """Another YAML parser reads the same documents from what is written, if it takes the text at all."""

    def meaning(it: str) -> object:
        try:
            return leaves(it)
        except (yaml.YAMLError, ValueError, RecursionError):
            return None

    expect_safe("yaml", text, meaning)
