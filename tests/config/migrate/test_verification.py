"""The proof after the rewriting: a reader that is wrong about a place changes no file."""

from __future__ import annotations

import pytest
from migrations import NAMES, OLD

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.rewrite import Rewritten, rewrite
from dsa_config.tools.migrate.sites import Reading, Site, Value


def test_a_changed_meaning_is_refused():
    """Whatever the reader says, the second reading must be the first with other names."""

    def read(text: str, _names: Names) -> Reading:
        return Reading([Site(OLD, 0)] if OLD in text else [], str(len(text)) if OLD in text else "else")

    with pytest.raises(Unparsable, match="it would mean something else"):
        rewrite(f"{OLD}=1", read, NAMES)


def test_a_converted_value_must_be_read_back():
    """Neither a value that is read as another nor one that breaks the file is written."""
    misread = Value("1500", 8, 12)

    def deaf(text: str, _names: Names) -> Reading:
        return Reading([Site("WAIT_MS", 0, sets=True, value=misread)] if "WAIT_MS" in text else [], "same")

    with pytest.raises(Unparsable, match="the new value '1.5' would be read as something else"):
        rewrite("WAIT_MS=1500", deaf, NAMES)

    def breaking(text: str, _names: Names) -> Reading:
        if "1.5" in text:
            raise Unparsable("no such number", 1)
        return deaf(text, _names)

    with pytest.raises(Unparsable, match="line 1: with the new values it could not be parsed: no such number"):
        rewrite("WAIT_MS=1500", breaking, NAMES)


def test_without_renamings_nothing_is_read():
    """No name is in any text."""

    def never(_text: str, _names: Names) -> Reading:
        raise AssertionError

    assert rewrite("anything", never, Names([])) == Rewritten("anything")
    assert list(Names([]).find("anything")) == []
