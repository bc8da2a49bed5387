"""What a flag says: by its rule, for a context, and the same for equal contexts."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

from dsa_config import BadValue, LiveSettings, setting
from dsa_config.flags import FlagContext, rules
from dsa_config.flags.rules import load_flags

SWITCH = {"state": "ENABLED", "variants": {"on": True, "off": False}}
ROLLOUT = {**SWITCH, "defaultVariant": "on", "targeting": {"fractional": [["off", 25], ["on", 75]]}}


def switch(**more):
    return {"fuse_topk": {**SWITCH, **more}}


def test_a_rule_picks_the_variant(flags):
    """The value, its variant, the reason and the place in the file are told."""
    by_model = {"if": [{"in": ["glm", {"var": "model"}]}, "off"]}
    loaded = flags(switch(defaultVariant="on", targeting=by_model))
    assert loaded.names == ("fuse_topk",)
    found = loaded.evaluate("fuse_topk", FlagContext(model="glm-5"))
    assert (found.given, found.value, found.variant, found.reason) == (False, False, "off", "TARGETING_MATCH")
    assert found.origin == f"flag fuse_topk in {loaded.path}:3, variant 'off' (TARGETING_MATCH)"
    other = loaded.evaluate("fuse_topk", FlagContext(model="deepseek"))
    assert (other.value, other.variant, other.reason) == (True, "on", "DEFAULT")
    assert loaded.evaluate("kv_format", FlagContext(model="glm-5")) is None


@pytest.mark.parametrize(
    "flag",
    [
        {"state": "DISABLED", "defaultVariant": "on"},
        {},
        {"defaultVariant": None, "targeting": {}},
        {"targeting": {"if": [{"==": [{"var": "layer"}, 3]}, "off"]}},
        {"targeting": {"if": [False, "off", None]}},
    ],
)
def test_a_flag_may_say_nothing(flags, flag):
    """Disabled, or without a default where no rule names a variant: weaker layers speak."""
    assert flags(switch(**flag)).evaluate("fuse_topk", FlagContext(layer=4)) is None


def test_values_of_every_type(flags):
    """Numbers, choices, null and structures are variants as well as booleans; the setting's parser has read them."""

    class Shapes(LiveSettings):
        sizes: list[int] = setting([1])
        ratio: float = setting(1.0)
        limit: int | None = setting(3)

    made = {
        "sizes": {"state": "ENABLED", "variants": {"big": [64, 128]}, "defaultVariant": "big"},
        "ratio": {"state": "ENABLED", "variants": {"half": 0.5, "one": 1}, "defaultVariant": "one"},
        "limit": {"state": "ENABLED", "variants": {"no": None}, "targeting": {"if": [True, "no"]}},
    }
    loaded = flags(made, cls=Shapes)
    assert loaded.evaluate("sizes").value == [64, 128]
    assert repr(loaded.evaluate("ratio").value) == "1.0"
    assert loaded.evaluate("limit").value is None
    assert loaded.evaluate("limit").variant == "no"
    kv = flags({"kv_format": {"state": "ENABLED", "variants": {"m": "model"}, "defaultVariant": "m"}})
    assert kv.evaluate("kv_format").value == "model"


def test_true_and_false_are_names_too(flags):
    """A rule that is a condition picks among the variants true and false, as in flagd."""
    flag = {"state": "ENABLED", "variants": {"true": False, "false": True}, "targeting": {">": [{"var": "layer"}, 2]}}
    loaded = flags({"fuse_topk": flag})
    assert loaded.evaluate("fuse_topk", FlagContext(layer=3)).value is False
    assert loaded.evaluate("fuse_topk", FlagContext(layer=2)).value is True


def test_shared_rules(flags):
    """A $ref stands for a rule of $evaluators, which may refer to others, and may hold any text."""
    loaded = flags(
        switch(targeting={"if": [{"$ref": "ours"}, "off", "on"]}),
        **{"$evaluators": {"ours": {"or": [{"$ref": "quoted"}]}, "quoted": {"==": [{"var": "model"}, 'a\\1"\u00e9']}}},
    )
    assert loaded.evaluate("fuse_topk", FlagContext(model='a\\1"é')).value is False
    assert loaded.evaluate("fuse_topk", FlagContext(model="b")).value is True


def test_a_quarter_is_a_quarter_and_stays_it(flags):
    """A 25 % rollout reaches about 25 % of 4,000 keys, and each key the same again in a new set."""
    contexts = [FlagContext(targetingKey=f"request-{number}") for number in range(4000)]
    loaded = flags({"fuse_topk": ROLLOUT})
    first = [loaded.evaluate("fuse_topk", context).value for context in contexts]
    assert 0.23 < first.count(False) / len(first) < 0.27
    again = flags({"fuse_topk": ROLLOUT})
    assert [again.evaluate("fuse_topk", FlagContext(**context)).value for context in contexts] == first


def test_another_process_decides_alike(flags):
    """The hash of a rollout is the same under another seed of Python's own hashes."""
    loaded = flags({"fuse_topk": ROLLOUT})
    program = (
        "import sys; from dsa_config import DSASettings; from dsa_config.flags import FlagContext\n"
        "from dsa_config.flags.rules import load_flags; loaded = load_flags(sys.argv[1], DSASettings)\n"
        "print([loaded.evaluate('fuse_topk', FlagContext(targetingKey=str(key))).variant for key in range(50)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(loaded.path)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [loaded.evaluate("fuse_topk", FlagContext(targetingKey=str(key))).variant for key in range(50)]
    assert done.stdout.strip() == str(here)


def test_a_growing_rollout_keeps_its_first(flags):
    """Those who had the variant at 10 % have it at 50 % too."""

    def reached(share: int) -> set[int]:
        split = {"fractional": [["off", share], ["on", 100 - share]]}
        loaded = flags(switch(targeting=split))
        found = {key: loaded.evaluate("fuse_topk", FlagContext(targetingKey=str(key))) for key in range(300)}
        return {key for key, flagged in found.items() if flagged.variant == "off"}

    assert reached(10) < reached(50)


@pytest.mark.parametrize(
    "rule",
    [
        {"fractional": [["off", 100]]},
        {"fractional": [{"var": "user"}, ["off", 100]]},
        {"if": [{"sem_ver": [{"var": "version"}, ">=", "1.2"]}, "off"]},
    ],
)
def test_a_context_without_the_fact_gets_the_default(flags, rule, caplog):
    """Nobody to be sticky to, or no version to compare: the default variant, by name, and no error in the log."""
    loaded = flags(switch(defaultVariant="on", targeting=rule))
    found = loaded.evaluate("fuse_topk")
    assert (found.variant, found.reason) == ("on", "DEFAULT")
    assert caplog.records == []
    knowing = FlagContext(targetingKey="r", user="u", version="1.3.0")
    assert loaded.evaluate("fuse_topk", knowing).variant == "off"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"cat": ["o", {"var": "end"}]}, "Resolved variant of not in variants config"),
        ({"var": "end"}, "Resolved variant f not in variants config"),
        ({"if": [{"/": [1, {"var": "zero"}]}, "on"]}, "ZeroDivisionError"),
        ({"if": [{"var": "deep"}, {"min": [{"var": "end"}, 1]}]}, "not in variants"),
    ],
)
def test_an_answer_that_is_none_is_an_error(flags, rule, words):
    """A rule that breaks, or names no variant, is never silently the default."""
    loaded = flags(switch(defaultVariant="on", targeting=rule))
    with pytest.raises(BadValue, match=words) as caught:
        loaded.evaluate("fuse_topk", FlagContext(end="f", zero=0, deep=True))
    assert caught.value.name == "fuse_topk"
    assert caught.value.origin == f"flag fuse_topk in {loaded.path}:3, targeting"
    assert caught.value.allowed.endswith("from a variant: on, off")


def test_evaluated_once_a_context(flags, monkeypatch):
    """Equal contexts share one evaluation; a context of another type, and a new set, get their own."""
    calls = []
    whole = rules.FlagSet._evaluated
    monkeypatch.setattr(rules.FlagSet, "_evaluated", lambda *args: calls.append(args) or whole(*args))
    loaded = flags(switch(targeting={"if": [{"===": [{"var": "x"}, 1]}, "on"]}))
    for _ in range(3):
        assert loaded.evaluate("fuse_topk", FlagContext(x=1)).value is True
        assert loaded.evaluate("fuse_topk", FlagContext(x=2)) is None
    assert len(calls) == 2
    load_flags(loaded.path, loaded._cls).evaluate("fuse_topk", FlagContext(x=1))
    assert len(calls) == 3


def test_what_is_kept_is_bounded(flags, monkeypatch):
    """However many requests come, a set keeps a limited number of evaluations."""
    monkeypatch.setattr(rules, "MOST_KEPT", 10)
    loaded = flags({"fuse_topk": ROLLOUT})
    for number in range(35):
        loaded.evaluate("fuse_topk", FlagContext(targetingKey=str(number)))
        assert len(loaded._kept) <= 10


@pytest.mark.parametrize(
    ("condition", "timed"),
    [
        ({">": [{"var": "$flagd.timestamp"}, 5]}, True),
        ({"var": ["$flagd"]}, True),
        ({"var": ""}, True),
        ({"var": []}, True),
        ({"var": {"cat": ["$flagd", ".timestamp"]}}, True),
        ({"missing": ["$flagd.timestamp"]}, True),
        ({"missing_some": [1, ["a", "b"]]}, False),
        ({"==": [{"var": "$flagd.flagKey"}, "fuse_topk"]}, False),
        ({"==": [{"var": ["layer", 0]}, 1]}, False),
        ({"some": [{"var": "gpus"}, {"==": [{"var": ""}, 1]}]}, False),
        ({"some": [[{"var": "$flagd.timestamp"}], {"==": [{"var": ""}, 1]}]}, True),
        ({"in": [{"var": 1}, ["a"]]}, False),
    ],
)
def test_what_looks_at_the_time_is_not_kept(flags, monkeypatch, condition, timed):
    """A rule that may see the time is evaluated on every read; all others once."""
    loaded = flags(switch(defaultVariant="on", targeting={"if": [condition, "off"]}))
    assert loaded.timed == ({"fuse_topk"} if timed else set())
    loaded.evaluate("fuse_topk", FlagContext(gpus=[1]))
    assert len(loaded._kept) == (0 if timed else 1)


def test_time_passes(flags, monkeypatch):
    """A rule with a date changes its answer on that date."""
    loaded = flags(switch(defaultVariant="on", targeting={"if": [{">": [{"var": "$flagd.timestamp"}, 1000]}, "off"]}))
    answers = []
    for now in (999, 1001):
        monkeypatch.setattr("time.time", lambda now=now: now)
        answers.append(loaded.evaluate("fuse_topk").variant)
    assert answers == ["on", "off"]


def test_many_threads_agree(flags, monkeypatch):
    """Eight threads over a small cache see the same answers as one."""
    monkeypatch.setattr(rules, "MOST_KEPT", 7)
    contexts = [FlagContext(targetingKey=str(number)) for number in range(40)]
    loaded = flags({"fuse_topk": ROLLOUT})
    expected = [loaded.evaluate("fuse_topk", context) for context in contexts]
    wrong = []

    def read() -> None:
        seen = [[loaded.evaluate("fuse_topk", context) for context in contexts] for _ in range(20)]
        wrong.extend(answers for answers in seen if answers != expected)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # this process has threads; that is the point
def test_a_fork_while_another_thread_evaluates(flags):
    """A child does not wait for a lock that a thread of its parent held."""
    loaded = flags({"fuse_topk": ROLLOUT})
    evaluator = loaded._evaluator()
    with evaluator._lock:
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        held, done = threading.Event(), threading.Event()
        child = context.Process(
            target=lambda: results.put(loaded.evaluate("fuse_topk", FlagContext(targetingKey="r")).variant)
        )
        starter = threading.Thread(target=lambda: (child.start(), held.set(), done.wait()))
        starter.start()
        held.wait()
        answer = results.get(timeout=60)
        done.set()
    starter.join()
    child.join()
    assert answer == loaded.evaluate("fuse_topk", FlagContext(targetingKey="r")).variant
