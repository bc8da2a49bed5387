"""Evaluation contexts: immutable, comparable by value and type, and strict about what they hold."""

from __future__ import annotations

import datetime
import enum
import math
import pickle

import pytest

from dsa_config.flags import BadContext, FlagContext

NESTED = {"gpus": [1, 2.5, {"arch": "sm90"}], "spare": None}


class Rank(enum.IntEnum):
    FIRST = 0


def nest(depth: int) -> object:
    return [nest(depth - 1)] if depth else "deep"


def test_equal_values_are_one_context():
    """The order of keys, lists against tuples and subclasses of plain types make no difference."""
    one = FlagContext(model="glm-5", rank=0, cluster=NESTED)
    other = FlagContext(cluster={"spare": None, "gpus": (1, 2.5, {"arch": "sm90"})}, rank=Rank.FIRST, model="glm-5")
    assert one == other
    assert hash(one) == hash(other)
    assert {one: "kept"}[other] == "kept"
    assert type(other["rank"]) is int


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0, False), ("1", 1), ([1], {"0": 1}), ([], None)])
def test_types_are_told_apart(one, other):
    """Values that Python takes for equal, and a rule does not, make different contexts."""
    assert FlagContext(value=one) != FlagContext(value=other)
    assert FlagContext(value=[one]) != FlagContext(value=[other])


def test_it_reads_like_a_mapping():
    """Values come back as plain lists and dictionaries, and changing those changes nothing."""
    context = FlagContext(cluster=NESTED, on=True)
    assert dict(context) == {"cluster": NESTED, "on": True}
    assert len(context) == 2
    context["cluster"]["gpus"].append("more")
    assert context["cluster"] == NESTED
    assert context != {"cluster": NESTED, "on": True}
    assert repr(FlagContext(layer=3)) == "FlagContext(layer=3)"


def test_merging_makes_another():
    """The other's values win, whole; neither context changes; any mapping will do."""
    one = FlagContext(model="glm-5", layer=3)
    merged = one.merged({"layer": 4, "targetingKey": "r1"})
    assert merged == FlagContext(model="glm-5", layer=4, targetingKey="r1")
    assert merged.targeting_key == "r1"
    assert one.targeting_key is None
    assert one == FlagContext(model="glm-5", layer=3)
    assert one.merged(FlagContext(layer=5)) == FlagContext(model="glm-5", layer=5)


def test_it_cannot_be_changed():
    """Neither by assignment nor by deletion."""
    context = FlagContext(layer=3)
    with pytest.raises(AttributeError, match="merged"):
        context.layer = 4
    with pytest.raises(AttributeError, match="merged"):
        del context._hash
    assert context == FlagContext(layer=3)


def test_it_travels():
    """A pickled context is the same context in another process."""
    context = FlagContext(cluster=NESTED, targetingKey="r1")
    assert pickle.loads(pickle.dumps(context)) == context


def test_dates_are_text():
    """OpenFeature contexts may hold dates; a rule sees them in ISO format."""
    when = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    assert FlagContext(since=when)["since"] == "2026-01-02T03:04:00+00:00"


def test_minus_zero_is_zero():
    """Contexts that are equal give a rule the same number."""
    assert math.copysign(1, FlagContext(x=-0.0)["x"]) == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"x": {1, 2}}, r"^evaluation context, 'x': \{1, 2\} is of type set; a context takes text, integers"),
        ({"x": math.nan}, "'x': nan is of type float"),
        ({"x": [1, math.inf]}, "'x.1': inf is of type float"),
        ({"x": {"y": b"z"}}, "'x.y': b'z' is of type bytes"),
        ({"x": {1: "y"}}, "'x': a key of its mapping is 1, not text"),
        ({"x": "\ud800"}, "'x': '.ud800' is not Unicode text"),
        ({"x": nest(33)}, "nested more than 32 deep"),
        ({"targetingKey": 7}, "'targetingKey': 7 is not text"),
        ({"$flagd": {}}, "'.flagd': the name is taken"),
    ],
)
def test_bad_values_name_their_key(values, words):
    """What a context cannot hold is an error that says where it is and what is allowed."""
    with pytest.raises(BadContext, match=words) as caught:
        FlagContext(**values)
    assert caught.value.key.startswith(next(iter(values)))
    with pytest.raises(BadContext, match=words):
        FlagContext().merged(values)


def test_keys_are_text():
    """A mapping with other keys is an error of ours, not one of the call."""
    with pytest.raises(BadContext, match="the key 1 is not text"):
        FlagContext.of({1: "x"})
    assert FlagContext.of({"targetingKey": None}).targeting_key is None
    assert FlagContext(x=nest(32))["x"] == nest(32)
