"""What docs/troubleshooting.md quotes is what users get: each message is produced, and each error has its place."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from troubles import all_producers

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### `?([^`\n]+)`?\n(.*?)(?=^#{2,3} |\Z)", PAGE, re.M | re.S))
MESSAGES = {heading: re.findall(r"^```text\n(.*?)^```", body, re.M | re.S) for heading, body in SECTIONS.items()}
PRODUCERS = all_producers()
QUOTED = [
    pytest.param(heading, message, producer, id=f"{heading}-{producer.__name__}")
    for heading, messages in MESSAGES.items()
    for message, producer in zip(messages, PRODUCERS.get(heading, []), strict=False)
]
NEVER_RAISED = {"SettingError", "DsaError", "ArgumentError"}
"""Of which the others are kinds."""


@pytest.mark.parametrize(("heading", "message", "producer"), QUOTED)
def test_the_message_is_what_comes(heading, message, producer, request):
    """Word for word; three dots stand for what depends on where it happens."""
    arguments = {name: request.getfixturevalue(name) for name in inspect.signature(producer).parameters}
    kinds, told = told_by(lambda: producer(**arguments))
    assert kinds is None or heading in kinds
    pattern = ".*".join(re.escape(part) for part in " ".join(message.split()).split("..."))
    assert re.search(pattern, told), told


def told_by(producer) -> tuple[list[str] | None, str]:
    """What a producer raised, as the names of its classes and its words; or None and the text that it returned."""
    try:
        kinds, text = None, str(producer())
    except Exception as error:
        kinds, text = [kind.__name__ for kind in type(error).__mro__], str(error)
    return kinds, " ".join(text.split())


def test_every_message_has_its_producer_and_every_producer_its_message():
    """One for one, under the same heading."""
    assert {it: len(found) for it, found in MESSAGES.items()} == {it: len(found) for it, found in PRODUCERS.items()}


def test_every_error_has_a_place():
    """Whatever is derived from the packages' errors has a heading."""
    missing = kinds_of_errors() - NEVER_RAISED - SECTIONS.keys()
    assert missing == set()


def kinds_of_errors() -> set[str]:
    """The names of all classes under the two packages that are errors or warnings of theirs."""
    bases: dict[str, set[str]] = {}
    for package in ("dsa_config", "dsa_exec"):
        for path in ROOT.glob(f"{package}/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    bases.setdefault(node.name, set()).update(ast.unparse(base) for base in node.bases)
    found = {"SettingError", "DsaError", "FutureWarning", "UserWarning"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found - {"FutureWarning", "UserWarning"}


def test_each_entry_has_a_cause_and_a_remedy():
    """And each message in it is followed by them."""
    lacking = [heading for heading, body in SECTIONS.items() if not ("**Cause.**" in body and "**Remedy.**" in body)]
    assert lacking == []


def test_the_index_names_what_the_messages_say():
    """A row's words are in a message of the entry that it leads to, and each entry has a row."""
    rows = re.findall(r"^\| `([^|]+)` \| \[[^\]]+\]\(#([^)]+)\) \|$", PAGE, re.M)
    entries = {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")): heading for heading in SECTIONS}
    assert {anchor for _, anchor in rows} == set(entries)
    for words, anchor in rows:
        assert any(words in " ".join(message.split()) for message in MESSAGES[entries[anchor]]), words
