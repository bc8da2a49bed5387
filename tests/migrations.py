"""Renamings for tests of the migration, and what must hold for any text that is given to it."""

from __future__ import annotations

import re
from collections.abc import Callable

from hypothesis import strategies as st

from dsa_config.errors import Rejected
from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.formats import Kind, reader_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.renamings import Renaming
from dsa_config.tools.migrate.rewrite import Rewritten, rewrite

OLD, NEW = "SGLANG_NSA_FUSE_TOPK", "SGLANG_DSA_FUSE_TOPK"


def seconds(text: str) -> str:
    if not text.isdecimal():
        raise Rejected(f"{text!r} is no number of milliseconds")
    return str(int(text) / 1000).removesuffix(".0")


def inverted(text: str) -> str:
    try:
        return {"0": "1", "1": "0", "true": "false", "false": "true", "odd": "needs 'quotes'"}[text]
    except KeyError:
        raise Rejected(f"{text!r} is no boolean") from None


RENAMINGS = (
    Renaming(OLD, NEW),
    Renaming("OLDER_FUSE_TOPK", NEW),
    Renaming("WAIT_MS", "WAIT_S", convert=seconds),
    Renaming("DISABLE_IT", "ENABLE_IT", convert=inverted),
    Renaming("GONE", None),
    Renaming("MERGED", "WHOLE", by_hand="MERGED and HALF became WHOLE"),
)
NAMES = Names(RENAMINGS)
HOSTILE = (OLD, NEW, "WAIT_MS", "DISABLE_IT", "GONE", f"{OLD}_EXTRA", f"MY_{OLD}", "OLDER_FUSE_TOPK")


def migrated(kind: Kind, text: str) -> Rewritten:
    """A text of a kind, migrated."""
    return rewrite(text, reader_of(kind), NAMES)


def reasons(done: Rewritten) -> list[tuple[int, str, str]]:
    """What is left for a hand, as tuples."""
    return [(it.line, it.name, it.why) for it in done.by_hand]


def texts_of(*fragments: str) -> st.SearchStrategy[str]:
    """Texts of a format's own fragments, the names, and anything at all."""
    return st.lists(st.sampled_from([*fragments, *HOSTILE, "\n", " "]) | st.text(max_size=3), max_size=14).map("".join)


def expect_renamed(kind: Kind, before: str, after: str) -> None:
    """The text becomes that text, nothing is left for a hand, and the second run changes nothing."""
    done = migrated(kind, before)
    assert done.text == after
    assert done.by_hand == []
    assert len(done.changes) >= 1
    assert migrated(kind, after).text == after


def expect_by_hand(kind: Kind, text: str, *parts: str) -> None:
    """The text stays as it is, and one line for a hand has all these parts."""
    done = migrated(kind, text)
    assert done.text == text
    assert any(all(part in f"{it.name}: {it.why}" for part in parts) for it in done.by_hand), done.by_hand


def expect_safe(kind: Kind, text: str, meaning: Callable[[str], object]) -> None:
    """Whatever the text: refused, or only whole names and convertible values changed, and the meaning kept.

    Args:
        kind: the format.
        text: hostile text.
        meaning: an independent reading of the format, in which old names stand as new ones.
    """
    try:
        done = migrated(kind, text)
    except Unparsable:
        return
    if not NAMES.mentioned(text):
        assert done == Rewritten(text)
    converted = any(it.old in {"WAIT_MS", "DISABLE_IT"} for it in done.changes)
    assert (done.text != text) == bool(done.changes)
    for whole in (f"{OLD}_EXTRA", f"MY_{OLD}"):
        assert done.text.count(whole) == text.count(whole)
    if done.changes and not converted:
        assert without_names(done.text) == without_names(text)
        assert meaning(done.text) == meaning(text)


def without_names(text: str) -> str:
    return re.sub(r"\b(?:SGLANG_NSA|SGLANG_DSA|OLDER)_FUSE_TOPK\b", "*", text)


def canonical(text: str) -> str:
    """A leaf of a document with old names as new ones."""
    return re.sub(r"\b(?:SGLANG_NSA|OLDER)_FUSE_TOPK\b", NEW, text)


def canonical_leaves(document: object) -> object:
    """A document with old names as new ones; an entry that would be lost is seen by its length."""
    match document:
        case str():
            return canonical(document)
        case dict():
            return [(canonical_leaves(key), canonical_leaves(value)) for key, value in document.items()]
        case list():
            return [canonical_leaves(item) for item in document]
        case _:
            return repr(document)
