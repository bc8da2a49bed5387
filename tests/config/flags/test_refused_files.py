"""A flag file with an error is refused whole, and the refusal names every error and where it is."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import field_validator

from dsa_config import DSASettings, LiveSettings, SettingError, setting
from dsa_config.declared import settings_of
from dsa_config.flags import FlagFileError, FlagsExtraMissing
from dsa_config.flags.operators import LEFT_OUT, OPERATORS
from dsa_config.flags.rules import load_flags

GOOD = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
UNKNOWN = "which is not among the variants on, off"


def refused(load) -> FlagFileError:
    with pytest.raises(FlagFileError) as caught:
        load()
    return caught.value


def expect_one(error: FlagFileError, words: str) -> None:
    assert len(error.errors) == 1, error
    assert words in error.errors[0]
    assert str(error.path) in str(error)
    assert error.errors[0] in str(error)


MANY = """{
 "flags": {
  "fuse_tokp": {},
  "SGLANG_DSA_FUSE_TOPK": {},
  "fuse_topk": {"state": "ENABLED", "variants": {"on": "maybe"},
    "defaultVariant": "of"},
  "kv_format": {"state": "ENABLED", "variants": {"m": "model"}, "targeting": {"iff": []}}
 }
}"""


def test_every_error_is_told_at_once(flags, tmp_path):
    """One message with all of them, each with file, line, flag and what is allowed, in the order of the file."""
    error = refused(lambda: flags(MANY))
    file = str(tmp_path / "flags.json")
    assert error.path == file
    assert str(error).startswith(f"{file}: 5 errors, so that none of its flags is used:\n  {file}:3: ")
    wanted = f"fuse_topk takes {settings_of(DSASettings)['fuse_topk'].allowed}"
    said = [
        "3: flag 'fuse_tokp' is not a setting of DSASettings; did you mean fuse_topk?",
        "4: flag 'SGLANG_DSA_FUSE_TOPK' is not a setting of DSASettings; it is the environment name of fuse_topk",
        f"5: flag fuse_topk: variant 'on'='maybe': is text, and in JSON it is written as true or false; {wanted}",
        "6: flag fuse_topk: defaultVariant 'of' is not among the variants on",
        "7: flag kv_format, targeting: there is no operator 'iff'; did you mean if?",
    ]
    assert list(error.errors) == [f"{file}:{line}" for line in said]
    assert isinstance(error, SettingError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "flags.json:1: column 1: it is not JSON: Expecting value"),
        ('{\n "flags": {},,\n}', "flags.json:2: column 14: it is not JSON"),
        ('{"flags": NaN}', "it is not JSON: NaN is no number in JSON"),
        ("[" * 100_000, "it is not JSON: "),
        ('{"flags": ' + "9" * 5000 + "}", "it is not JSON: "),
        ("[]", "the file is a list; wanted an object"),
        ("{}", "it has no flags; wanted an object with the key 'flags'"),
        ('{"flags": 3}', "flags is an integer; wanted an object"),
        ('{"flags": {}, "flag": {}}', "'flag' is not a key of a flag file; did you mean flags?"),
        ('{"flags": {}, "zzz": {}}', "wanted $schema, flags, $evaluators, metadata"),
        ('{"flags": {}, "$schema": 1}', "1 is not the address of a schema"),
        ('{"flags": {},\n"flags": {}}', "flags.json:2: 'flags' stands here again"),
        ('{"flags": {}, "metadata": {"a": null}}', "metadata 'a': None is not text, a number, true or false"),
        ('{"flags": {}, "metadata": 1.5}', "metadata is a number; wanted an object"),
        ('{"flags": {}, "$evaluators": true}', "$evaluators is true or false; wanted an object"),
        ('{"flags": {}, "$evaluators": {"a": "b"}}', "$evaluators: 'a' is text; wanted an object"),
        ('{"flags": {}, "$evaluators": {"a": {"b": 1}}}', "$evaluators: 'a': there is no operator 'b'"),
        ('{"flags": {"fuse_topk": null}}', "flag fuse_topk is null; wanted an object"),
        ('{"flags": {"zzz": {}}}', "flags are named as the settings' fields are"),
    ],
)
def test_documents(flags, text, words):
    """What is no JSON, or has another shape than a flag file."""
    expect_one(refused(lambda: flags(text)), words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": "ON"}, "flag fuse_topk: state 'ON' is not ENABLED or DISABLED"),
        ({"state": ["ENABLED"]}, "state ['ENABLED'] is not"),
        ({"state": ...}, "flag fuse_topk: it has no state; wanted ENABLED or DISABLED"),
        ({"variants": ..., "defaultVariant": ...}, "flag fuse_topk: variants is null; wanted an object"),
        ({"variants": {}, "defaultVariant": ...}, "flag fuse_topk: it has no variants"),
        ({"variants": {"on": True, "": False}}, "flag fuse_topk: a variant has no name"),
        ({"variants": {"on": 1}}, "variant 'on'=1: is an integer, and in JSON it is written as true or false"),
        ({"defaultVariant": "maybe"}, "defaultVariant 'maybe' is not among the variants on, off"),
        ({"defaultVariant": True}, "defaultVariant True is not among"),
        ({"defaultVariant": ["on"]}, "defaultVariant ['on'] is not among"),
        ({"default": "on"}, "'default' is not a key of flag fuse_topk; wanted state, variants"),
        ({"defaultVariants": "on"}, "'defaultVariants' is not a key of flag fuse_topk; did you mean defaultVariant?"),
        ({"metadata": {"owner": ["x"]}}, "metadata 'owner': ['x'] is not text"),
        ({"targeting": []}, "flag fuse_topk: targeting is a list; wanted an object"),
    ],
)
def test_flags(flags, change, words):
    """What is wrong with one flag, besides its rule."""
    flag = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    expect_one(refused(lambda: flags({"fuse_topk": flag})), words)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"iff": [1, 2]}, "targeting: there is no operator 'iff'; did you mean if?"),
        ({"xyz": []}, "there is no operator 'xyz'; wanted one of if ?:"),
        ({"if": [{"log": "x"}, "on"]}, "'log' is not allowed: it would print"),
        ({"if": ["on"], "or": []}, "is no rule: wanted one operator and its arguments"),
        ({"if": [{}, "on"]}, "{} is no rule"),
        ({"==": [1]}, "== takes 2 arguments, not 1"),
        ({"!": [1, 2]}, "! takes 1 argument, not 2"),
        ({"if": []}, "if takes 1 or more arguments, not 0"),
        ({"<": [1]}, "< takes 2 to 3 arguments, not 1"),
        ({"$ref": "ours"}, "$ref: 'ours' is not in $evaluators; it has none"),
        ({"$ref": 3}, "$ref: 3 is not in $evaluators"),
        ({"if": [{"var": "x"}, "offf"]}, f"targeting names 'offf', {UNKNOWN}"),
        ({"if": [{"var": "x"}, "on", 3]}, f"targeting names 3, {UNKNOWN}"),
        ({"?:": [1, "on", ["off"]]}, f"targeting names ['off'], {UNKNOWN}"),
        ({"if": [1, {"if": [2, "on", "of"]}]}, f"targeting names 'of', {UNKNOWN}"),
        ({"fractional": [["on", 1], ["maybe", 1]]}, f"targeting names 'maybe', {UNKNOWN}"),
        ({"fractional": [{"var": "x"}, ["maybe", 1]]}, f"targeting names 'maybe', {UNKNOWN}"),
        ({"fractional": ["on", 50]}, "fractional: 50 is not [variant] or [variant, weight]"),
        ({"fractional": [["on", 50, 1]]}, "fractional: ['on', 50, 1] is not [variant]"),
        ({"fractional": [["on", -1]]}, "the weight -1 of 'on' is not an integer of at least 0"),
        ({"fractional": [["on", 2.5]]}, "the weight 2.5 of 'on' is not an integer"),
        ({"fractional": [["on", True]]}, "the weight True of 'on' is not an integer"),
        ({"fractional": [["on", "50"]]}, "the weight '50' of 'on' is not an integer"),
        ({"fractional": [["on", 0], ["off", 0]]}, "the weights add up to 0; wanted 1 to 2147483647"),
        ({"fractional": [["on", 2**31]]}, "the weights add up to 2147483648"),
        ({"fractional": {"var": "x"}}, "the weights add up to 0"),
        ({"fractional": [{"merge": ["a", "b"]}, ["on"]]}, "join texts with cat"),
        ({"if": [{"starts_with": [{"var": "x"}, 3]}, "on"]}, "starts_with takes two texts, not 3"),
        ({"if": [{"sem_ver": [{"var": "x"}, ">", "new"]}, "on"]}, "sem_ver: 'new' is not a version such as 1.2.3"),
        ({"if": [{"sem_ver": [{"var": "x"}, "=>", "1.0"]}, "on"]}, "sem_ver: '=>' is none of = != <"),
    ],
)
def test_rules(flags, rule, words):
    """What is wrong with a rule, as far as it shows without evaluating it."""
    expect_one(refused(lambda: flags({"fuse_topk": {**GOOD, "targeting": rule}})), words)


def test_a_rule_that_is_a_condition_needs_both_variants(flags):
    """A comparison gives true or false, which must be names of variants then."""
    error = refused(lambda: flags({"fuse_topk": {**GOOD, "targeting": {"==": [{"var": "x"}, 1]}}}))
    assert [line.partition("names ")[2].partition(",")[0] for line in error.errors] == ["True", "False"]


def test_notes_are_allowed(flags):
    """Metadata of the file and of a flag may be text, numbers, true and false."""
    notes = {"owner": "us", "ticket": 7, "share": 0.5, "stays": False}
    assert flags({"fuse_topk": {**GOOD, "metadata": notes}}, metadata=notes).names == ("fuse_topk",)


def test_weights_may_be_worked_out(flags):
    """A weight that is a rule is left to the evaluation."""
    split = {"fractional": [["on", {"var": "share"}], ["off", 50]]}
    assert flags({"fuse_topk": {**GOOD, "targeting": split}}).names == ("fuse_topk",)


def evaluators(**rules: Any) -> dict[str, Any]:
    return {"$evaluators": rules}


def test_shared_rules_that_go_in_a_circle(flags):
    """A $ref that leads back to itself is told, not followed."""
    error = refused(lambda: flags({}, **evaluators(a={"!": {"$ref": "b"}}, b={"!": {"$ref": "a"}})))
    assert any("$ref: b -> a -> b is a circle" in line for line in error.errors)


def test_shared_rules_with_a_near_name(flags):
    """A $ref that is nearly right is told what it may have meant."""
    flag = {**GOOD, "targeting": {"if": [{"$ref": "glmm"}, "on"]}}
    error = refused(lambda: flags({"fuse_topk": flag}, **evaluators(glm={"var": "x"})))
    expect_one(error, "'glmm' is not in $evaluators; did you mean glm?")


def test_rules_that_grow_without_end(flags):
    """Shared rules that double at every step, or nest without measure, are refused before they fill the memory."""
    doubling: dict[str, Any] = {"r0": {"var": "x"}}
    for step in range(40):
        doubling[f"r{step + 1}"] = {"and": [{"$ref": f"r{step}"}, {"$ref": f"r{step}"}]}
    assert "larger than 10000 parts" in str(refused(lambda: flags({}, **evaluators(**doubling))))
    deep: Any = {"var": "x"}
    for _ in range(70):
        deep = {"!": [deep]}
    assert "nested more than 64 deep" in str(refused(lambda: flags({}, **evaluators(deep=deep))))


def test_values_that_the_setting_refuses(flags):
    """Ranges, choices and validators of the user's own are asked for every variant, used or not."""

    class Own(LiveSettings):
        even: int = setting(2, ge=0)
        odd: int = setting(1)

        @field_validator("even", "odd")
        @classmethod
        def check(cls, value: int, info: Any) -> int:
            if value > 90:
                raise KeyError
            if info.field_name == "even" and value % 2:
                raise ValueError("is odd")
            return value

    def flag(value: object) -> dict[str, Any]:
        return {"state": "DISABLED", "variants": {"v": value}}

    for value, words in (
        (3, "'v'=3: is odd; even takes"),
        (-2, "0 <= x"),
        (99, "KeyError"),
        (2.0, "written as an integer"),
    ):
        error = refused(lambda value=value: flags({"even": flag(value)}, cls=Own))
        assert words in error.errors[0]


def test_a_secret_is_no_flag(flags, monkeypatch):
    """A secret's name in a flag file is an error, and its value is not repeated."""
    monkeypatch.setattr("dsa_config.flags.document.is_flaggable", lambda it: it.name != "kv_format")
    flag = {"state": "ENABLED", "variants": {"v": "hunter2"}}
    error = refused(lambda: flags({"kv_format": flag}))
    expect_one(error, "flag kv_format: it is a secret, and a secret cannot be a flag")
    assert "hunter2" not in str(error)
    assert "did you mean kv_format" not in str(refused(lambda: flags({"kv_fromat": flag})))


def test_files_that_cannot_be_read(tmp_path):
    """Missing, a directory, no text, no path: each is told by its path."""
    binary = tmp_path / "binary.json"
    binary.write_bytes(b'{"flags": {}, "x": "\xff"}')
    for path, words in (
        (tmp_path / "none.json", "it cannot be read: No such file or directory"),
        (tmp_path, "it cannot be read: Is a directory"),
        ("nul\0", "it cannot be read: embedded null byte"),
        (binary, "it is not UTF-8 text (byte 20)"),
    ):
        expect_one(refused(lambda path=path: load_flags(path, DSASettings)), words)


def test_a_byte_order_mark_is_no_error(tmp_path):
    """As some editors write it."""
    path = tmp_path / "flags.json"
    path.write_text('\ufeff{"flags": {}}', "utf-8")
    assert load_flags(path, DSASettings).names == ()


def test_without_the_evaluator(tmp_path, monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "openfeature.contrib.tools.flagd.core", None)
    with pytest.raises(FlagsExtraMissing, match=r"need openfeature-flagd-core, .*: pip install 'dsa\[flags\]'"):
        load_flags(tmp_path / "flags.json", DSASettings)


def test_the_operators_are_flagds():
    """Our list is what the evaluator knows, less what we leave out."""
    from openfeature.contrib.tools.flagd.core.targeting.targeting import OPERATORS as EVALUATED

    handled_apart = {"if", "?:", "and", "or", "filter", "reduce", "map", "all", "some", "none"}
    assert set(OPERATORS) == (set(EVALUATED) | handled_apart) - set(LEFT_OUT)
