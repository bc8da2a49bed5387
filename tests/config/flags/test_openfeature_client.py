"""Any OpenFeature client as a source of flags."""

from __future__ import annotations

import datetime
import sys
import time

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import ErrorCode, ProviderFatalError
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider
from openfeature.transaction_context import ContextVarsTransactionContextPropagator

from dsa_config import BadValue, DeclarationError, DSASettings, LiveSettings, UnknownSetting, setting
from dsa_config.flags import FlagContext, FlagsExtraMissing, client
from dsa_config.flags.client import ClientFlags


class Mixed(LiveSettings):
    on: bool = setting(False)
    count: int = setting(1, ge=0)
    share: float | None = setting(None, le=1)
    word: str = setting("a")
    either: int | str = setting(1)
    sizes: list[int] = setting([1])
    table: dict[str, int] | None = setting(None)
    several: dict[str, int] | list[int] = setting([2])


class Counting(InMemoryProvider):
    """An in-memory provider that can be changed, and counts what it is asked."""

    def __init__(self, **values: object) -> None:
        super().__init__({})
        self.asked: list[tuple[str, object]] = []
        self.put(**values)

    def put(self, **values: object) -> None:
        self._flags.update(
            {name: it if isinstance(it, InMemoryFlag) else InMemoryFlag("v", {"v": it}) for name, it in values.items()}
        )

    def _resolve(self, flag_key, default_value, evaluation_context):
        self.asked.append((flag_key, evaluation_context))
        return super()._resolve(flag_key, default_value, evaluation_context)

    def change(self, **values: object) -> None:
        self.put(**values)
        self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=list(values)))


@pytest.fixture
def listening():
    """Makes flags of a provider; everything is taken down at the end."""
    made = []

    def make(provider, cls=Mixed, names=None, wait=True):
        (api.set_provider_and_wait if wait else api.set_provider)(provider, "test")
        flags = ClientFlags(api.get_client("test"), cls, names or list(cls.model_fields))
        made.append(flags)
        settle(flags)
        return flags

    yield make
    for flags in made:
        flags.close()
    api.shutdown()


def settle(flags: ClientFlags) -> None:
    """Until the SDK's threads have told all that they have to tell."""
    epoch = -1
    while epoch != flags.epoch:
        epoch = flags.epoch
        time.sleep(0.05)


def after_event(flags: ClientFlags, epoch: int) -> None:
    deadline = time.monotonic() + 30
    while flags.epoch == epoch:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def split(variants, pick) -> InMemoryFlag:
    def evaluate(flag, context):
        variant = pick(context)
        return FlagResolutionDetails(variants[variant], reason=Reason.TARGETING_MATCH, variant=variant)

    return InMemoryFlag(next(iter(variants)), variants, context_evaluator=evaluate)


def test_values_of_every_type(listening):
    """Each setting is asked for by its type, and what comes is what its parser makes of it."""
    flags = listening(
        Counting(on=True, count=7, share=0.5, word=" b ", either="9", sizes=[3], table={"a": 1}, several=[4])
    )
    found = {name: flags.evaluate(name) for name in flags.names}
    assert {name: it.value for name, it in found.items()} == {
        "on": True,
        "count": 7,
        "share": 0.5,
        "word": "b",
        "either": 9,
        "sizes": [3],
        "table": {"a": 1},
        "several": [4],
    }
    assert found["word"].given == " b "
    assert found["count"].origin == "OpenFeature flag count of In-Memory Provider, variant 'v' (STATIC)"
    assert (found["count"].variant, found["count"].reason) == ("v", "STATIC")
    assert flags.state == "READY"
    assert flags.evaluate("other") is None


def test_the_context_reaches_the_provider(listening):
    """Attributes and targeting key arrive; equal contexts are evaluated once."""
    provider = Counting(on=split({"no": False, "yes": True}, lambda it: "yes" if it.attributes["layer"] > 2 else "no"))
    flags = listening(provider, names=["on"])
    for layer, expected in ((3, True), (1, False), (3, True)):
        context = FlagContext(layer=layer, targetingKey="r1", cluster={"gpus": [1]})
        found = flags.evaluate("on", context)
        assert (found.value, found.reason) == (expected, "TARGETING_MATCH")
    assert len(provider.asked) == 2
    assert provider.asked[0][1] == EvaluationContext("r1", {"layer": 3, "cluster": {"gpus": [1]}})


def test_a_change_begins_a_new_epoch(listening):
    """What was kept is asked for again after the provider's event, or when told."""
    provider = Counting(count=1)
    flags = listening(provider, names=["count"])
    epoch = flags.epoch
    assert flags.evaluate("count").value == 1
    provider.put(count=2)
    assert flags.evaluate("count").value == 1
    provider.change()
    after_event(flags, epoch)
    assert flags.evaluate("count").value == 2
    provider.put(count=3)
    flags.changed()
    assert flags.evaluate("count").value == 3


def test_another_provider_begins_a_new_epoch(listening):
    """Also one that was ready before, of which the SDK tells nobody."""
    flags = listening(Counting(count=1), names=["count"])
    other = Counting(count=2)
    api.set_provider_and_wait(other, "elsewhere")
    assert flags.evaluate("count").value == 1
    api.set_provider(other, "test")
    assert flags.evaluate("count").value == 2


def test_closed_flags_hear_nothing(listening):
    """After close() events change nothing; the client has no handler left."""
    provider = Counting(count=1)
    flags = listening(provider, names=["count"])
    heard = listening(provider, names=["count"])
    flags.close()
    before, epoch = flags.epoch, heard.epoch
    provider.change(count=2)
    after_event(heard, epoch)
    settle(heard)
    assert flags.epoch == before
    for event in client._events():
        flags._client.add_handler(event, flags._on_event)  # for the second close, of the fixture


def test_a_bad_value_is_refused(listening):
    """The last good value of the same context stays, or nothing; the refusal is kept until a good value comes."""
    provider = Counting(count=5)
    flags = listening(provider, names=["count"])
    assert flags.evaluate("count").value == 5
    provider.put(count=-3)
    flags.changed()
    assert flags.evaluate("count").value == 5
    assert flags.evaluate("count", FlagContext(layer=1)) is None
    (refusal,) = flags.refusals
    assert str(refusal).startswith(
        "count=-3 (from OpenFeature flag count of In-Memory Provider, variant 'v' (STATIC)): input should be"
    )
    asked = len(provider.asked)
    flags.evaluate("count")
    assert len(provider.asked) == asked
    provider.put(count=6)
    flags.changed()
    assert flags.evaluate("count").value == 6
    assert flags.refusals == ()


def test_a_refusal_is_not_hidden_by_another_context(listening):
    """While nothing has changed, a good value for one request does not take back the refusal for another."""
    provider = Counting(count=split({"bad": -1, "good": 1}, lambda it: it.attributes["ask"]))
    flags = listening(provider, names=["count"])
    assert flags.evaluate("count", FlagContext(ask="bad")) is None
    assert flags.evaluate("count", FlagContext(ask="good")).value == 1
    assert len(flags.refusals) == 1


@pytest.mark.parametrize(
    ("variant", "reason", "says"),
    [
        (None, Reason.DEFAULT, False),
        ("Passed in default", Reason.DEFAULT, False),
        ("v", Reason.DISABLED, False),
        ("v", Reason.DEFAULT, True),
        (None, Reason.STATIC, True),
        (None, None, True),
    ],
)
def test_our_own_default_is_no_answer(listening, variant, reason, says):
    """Where a provider gives back what it was asked with, the flag says nothing."""
    answer = FlagResolutionDetails(4, reason=reason, variant=variant)
    flags = listening(Counting(count=InMemoryFlag("v", {"v": 4}, context_evaluator=lambda *_: answer)), names=["count"])
    found = flags.evaluate("count")
    assert (found is not None) == says
    assert found is None or (found.value, found.variant, found.reason) == (4, variant, str(reason or "UNKNOWN"))


def test_no_provider_says_nothing(listening):
    """The provider that the SDK starts with has no word on anything."""
    flags = ClientFlags(api.get_client("nobody"), DSASettings, ["fuse_topk", "kv_format", "mem_fraction_static"])
    assert [flags.evaluate(name) for name in flags.names] == [None, None, None]
    flags.close()


def test_an_error_of_a_ready_provider_is_an_error(listening):
    """A missing flag or a wrong type is no silent default; it is asked again at the next read."""
    provider = Counting(on="yes")
    flags = listening(provider, names=["on", "count"])
    for name, code in (("on", ErrorCode.TYPE_MISMATCH), ("count", ErrorCode.FLAG_NOT_FOUND)):
        with pytest.raises(BadValue, match=f"OpenFeature cannot evaluate it: {code}: ") as caught:
            flags.evaluate(name)
        assert (caught.value.name, caught.value.origin) == (
            name,
            f"OpenFeature flag {name} of In-Memory Provider (ERROR)",
        )
    provider.put(on=True)
    assert flags.evaluate("on").value is True


class Broken(Counting):
    def initialize(self, evaluation_context):
        raise ProviderFatalError("no licence")


def test_a_provider_that_is_not_ready_says_nothing(listening):
    """Weaker layers speak, and the state is told."""
    flags = listening(Broken(count=3), names=["count"], wait=False)
    assert flags.evaluate("count") is None
    assert flags.state == "FATAL"


def test_what_the_sdk_adds_to_a_context_counts(listening):
    """The contexts of process, transaction and client are part of what an evaluation is kept for."""
    provider = Counting(word=split({"a": "a", "b": "b"}, lambda it: it.attributes.get("tenant", it.targeting_key)))
    flags = listening(provider, names=["word"])
    api.set_transaction_context_propagator(ContextVarsTransactionContextPropagator())
    for tenant in ("a", "b", "a"):
        api.set_transaction_context(EvaluationContext(None, {"tenant": tenant}))
        assert flags.evaluate("word").value == tenant
    api.set_transaction_context(EvaluationContext())
    for key in ("a", "b"):
        api.set_evaluation_context(EvaluationContext(key))
        assert flags.evaluate("word").value == key
    assert len(provider.asked) == 4


def test_dates_of_the_sdk_are_compared(listening):
    """A context may hold dates; what cannot be compared at all is evaluated on every read."""
    provider = Counting(count=1)
    flags = listening(provider, names=["count"])
    for attributes, asked in (({"now": datetime.date(2026, 1, 1)}, 1), ({"now": object()}, 3)):
        api.set_evaluation_context(EvaluationContext(None, attributes))
        assert [flags.evaluate("count").value for _ in range(2)] == [1, 1]
        assert len(provider.asked) == asked
    provider.put(count=-1)
    assert flags.evaluate("count") is None


def test_what_is_kept_is_bounded(listening, monkeypatch):
    """However many requests come."""
    monkeypatch.setattr(client, "MOST_KEPT", 10)
    flags = listening(Counting(count=1), names=["count"])
    for number in range(35):
        flags.evaluate("count", FlagContext(targetingKey=str(number)))
        assert len(flags._now.kept) <= 10
        assert len(flags._last_good) <= 10


def test_names_must_be_settings(monkeypatch):
    """An unknown name is told its nearest, a secret is refused."""
    with pytest.raises(UnknownSetting, match="did you mean fuse_topk"):
        ClientFlags(api.get_client(), DSASettings, ["fuse_tokp"])
    monkeypatch.setattr(client, "is_flaggable", lambda _: False)
    with pytest.raises(DeclarationError, match="DSASettings.fuse_topk is a secret"):
        ClientFlags(api.get_client(), DSASettings, ["fuse_topk"])


def test_without_the_sdk(monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "openfeature.event", None)
    with pytest.raises(FlagsExtraMissing, match=r"need openfeature-sdk, .*: pip install 'dsa\[flags\]'"):
        ClientFlags(api.get_client(), DSASettings, ["fuse_topk"])
