"""Flags from any OpenFeature client: a remote service, another file format, or a provider of your own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dsa_config.declare import LiveSettings
from dsa_config.declared import Setting, settings_of
from dsa_config.errors import BadValue, DeclarationError, UnknownSetting
from dsa_config.flags.context import EMPTY, TARGETING_KEY, FlagContext
from dsa_config.flags.errors import BadContext, FlagsExtraMissing, reason_of
from dsa_config.flags.rules import MOST_KEPT, Flagged
from dsa_config.flags.schema import is_flaggable, json_types

if TYPE_CHECKING:
    from openfeature.client import OpenFeatureClient
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.flag_evaluation import FlagEvaluationDetails

_NEUTRAL: dict[str, Any] = {"boolean": False, "integer": 0, "number": 0.0, "string": "", "object": {}, "array": []}
_GETTERS = {"boolean": "boolean", "integer": "integer", "number": "float", "string": "string"}
_ECHOES = (None, "Passed in default")
"""The variants under which a provider gives back the caller's own default."""


@dataclass(eq=False, slots=True)
class _Epoch:
    """What was evaluated between two changes of the provider."""

    number: int
    provider: object
    kept: dict[tuple[str, FlagContext, FlagContext], Flagged | None] = field(default_factory=dict)


class ClientFlags:
    """The flags of an OpenFeature client as a source of settings.

    An evaluation is kept until the provider says that its configuration or its state has changed. The handlers that
    learn of this run in a thread of the OpenFeature SDK, so that a change is seen a moment after it happened.
    """

    def __init__(self, client: OpenFeatureClient, cls: type[LiveSettings], names: Iterable[str]) -> None:
        """Listen to a client.

        Args:
            client: what `openfeature.api.get_client()` gives.
            cls: the settings class.
            names: the fields that the client has flags for, each under the field's name.

        Raises:
            UnknownSetting: the class has no such field.
            DeclarationError: a secret field, which cannot be a flag.
            FlagsExtraMissing: the OpenFeature SDK is not installed.
        """
        settings = settings_of(cls)
        self.names = tuple(names)
        for name in self.names:
            if name not in settings:
                raise UnknownSetting(name, settings, among=cls.__name__)
            if not is_flaggable(settings[name]):
                raise DeclarationError(f"{cls.__name__}.{name} is a secret, and a secret cannot be a flag")
        types = json_types(cls)
        self._client = client
        self._asked = {name: _Asked.of(settings[name], types[name]) for name in self.names}
        self._numbers = itertools.count()
        self._last_good: dict[tuple[str, FlagContext, FlagContext], Flagged] = {}
        self._refused: dict[str, tuple[int, BadValue]] = {}
        self._events, self._ambient_parts = _events(), _ambient_parts()
        self._now = self._new_epoch()
        for event in self._events:
            client.add_handler(event, self._on_event)

    @property
    def timed(self) -> frozenset[str]:
        """All of them: the server may change any flag at any time, so that nobody else may keep an answer."""
        return frozenset(self.names)

    @property
    def epoch(self) -> int:
        """A number that is another one after every change of the provider."""
        return self._current().number

    @property
    def state(self) -> str:
        """The provider's state: NOT_READY, READY, STALE, ERROR or FATAL."""
        return self._client.get_provider_status().name

    @property
    def refusals(self) -> tuple[BadValue, ...]:
        """The latest refused value of each flag that has not given a good one since it last changed."""
        return tuple(error for _, error in self._refused.copy().values())

    def changed(self) -> None:
        """Evaluate everything again. For providers that do not say when they change."""
        self._now = self._new_epoch()

    def close(self) -> None:
        """Stop listening to the client."""
        for event in self._events:
            self._client.remove_handler(event, self._on_event)

    def evaluate(self, name: str, context: FlagContext = EMPTY) -> Flagged | None:
        """What the flag of a setting says for a context; None where it says nothing, so that weaker layers speak.

        It says nothing while the provider is not ready, and where the provider gives back the default that it is
        asked with. A value that the setting does not take is refused: the last good one for this context stays, or
        nothing if there was none, and the refusal is in `refusals`.

        Args:
            name: the setting's field.
            context: who asks.

        Raises:
            BadValue: the provider is ready and cannot evaluate the flag.
        """
        asked = self._asked.get(name)
        if asked is None:
            return None
        epoch = self._current()
        try:
            key = (name, context, self._ambient())
        except BadContext:  # something in it is of no type that can be compared: nothing is kept
            return self._evaluated(asked, context, None, epoch)
        try:
            return epoch.kept[key]
        except KeyError:
            return self._evaluated(asked, context, key, epoch)

    def _evaluated(
        self, asked: _Asked, context: FlagContext, key: tuple[str, FlagContext, FlagContext] | None, epoch: _Epoch
    ) -> Flagged | None:
        details = asked.ask(self._client, _openfeature_context(context))
        origin = self._origin(asked.setting.name, details)
        if details.error_code is not None:
            if self.state != "READY":
                return None
            problem = f"OpenFeature cannot evaluate it: {details.error_code}: {details.error_message}"
            raise asked.bad(None, origin, problem)
        found: Flagged | None = None
        reason = str(details.reason or "UNKNOWN")
        if not (reason == "DISABLED" or (reason == "DEFAULT" and details.variant in _ECHOES)):
            try:
                value = asked.setting.parse(details.value)
                found = Flagged(details.value, value, details.variant, reason, origin)
            except Exception as error:  # Rejected, or whatever the user's own validator raises
                self._refused[asked.setting.name] = (epoch.number, asked.bad(details.value, origin, reason_of(error)))
                found = self._last_good.get(key) if key is not None else None
            else:
                refused_in, _ = self._refused.get(asked.setting.name, (epoch.number, None))
                if refused_in != epoch.number:
                    self._refused.pop(asked.setting.name, None)
                _keep(self._last_good, key, found)
        _keep(epoch.kept, key, found)
        return found

    def _origin(self, name: str, details: FlagEvaluationDetails[Any]) -> str:
        variant = f", variant {details.variant!r}" if details.variant is not None else ""
        return f"OpenFeature flag {name} of {self._client.provider.get_metadata().name}{variant} ({details.reason})"

    def _current(self) -> _Epoch:
        now = self._now
        if now.provider is not self._client.provider:  # replaced by one that was ready before, which is no event
            self._now = now = self._new_epoch()
        return now

    def _new_epoch(self) -> _Epoch:
        return _Epoch(next(self._numbers), self._client.provider)

    def _on_event(self, _: object) -> None:
        self.changed()

    def _ambient(self) -> FlagContext:
        """What the SDK adds to every context: the process's, the transaction's and the client's own."""
        ambient = EMPTY
        for context in (*(part() for part in self._ambient_parts), self._client.context):
            if context.attributes or context.targeting_key:
                ambient = ambient.merged(dict(context.attributes))
                if context.targeting_key:
                    ambient = ambient.merged({TARGETING_KEY: context.targeting_key})
        return ambient


@dataclass(frozen=True, slots=True)
class _Asked:
    """How the client is asked for one setting: by which of its getters, and with which default."""

    setting: Setting
    getter: str
    default: Any

    @classmethod
    def of(cls, setting: Setting, types: frozenset[str]) -> _Asked:
        values = types - {"null"}
        if not values or values & {"object", "array"}:
            kind = next(iter(values)) if len(values) == 1 else "object"
        else:  # of several types, such as a number or a word: text, which the setting's parser understands
            kind = next(iter(values)) if len(values) == 1 else "string"
        neutral = _NEUTRAL.get(kind, "")
        default = setting.default if type(setting.default) is type(neutral) else neutral
        return cls(setting, f"get_{_GETTERS.get(kind, 'object')}_details", default)

    def ask(self, client: OpenFeatureClient, context: EvaluationContext) -> FlagEvaluationDetails[Any]:
        found: FlagEvaluationDetails[Any] = getattr(client, self.getter)(self.setting.name, self.default, context)
        return found

    def bad(self, given: object, origin: str, reason: str) -> BadValue:
        name, allowed = self.setting.name, self.setting.allowed
        return BadValue(name=name, variable=None, given=given, origin=origin, reason=reason, allowed=allowed)


def _keep(kept: dict[Any, Any], key: object, found: Flagged | None) -> None:
    if key is None:
        return
    if len(kept) >= MOST_KEPT:
        kept.clear()
    kept[key] = found


def _openfeature_context(context: FlagContext) -> EvaluationContext:
    from openfeature.evaluation_context import EvaluationContext

    attributes = {key: value for key, value in context.items() if key != TARGETING_KEY}
    return EvaluationContext(context.targeting_key, attributes)


def _ambient_parts() -> tuple[Callable[[], EvaluationContext], ...]:
    from openfeature.evaluation_context import get_evaluation_context
    from openfeature.transaction_context import get_transaction_context

    return get_evaluation_context, get_transaction_context


def _events() -> tuple[Any, ...]:
    try:
        from openfeature.event import ProviderEvent
    except ImportError as error:
        raise FlagsExtraMissing("openfeature-sdk") from error
    return tuple(ProviderEvent)
