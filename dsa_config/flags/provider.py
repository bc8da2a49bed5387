"""The settings as an OpenFeature provider, so that code written for OpenFeature reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic_core import to_jsonable_python

from dsa_config.declare import LiveSettings
from dsa_config.declared import settings_of
from dsa_config.errors import SettingError, UnknownSetting, shown
from dsa_config.flags.context import TARGETING_KEY, FlagContext
from dsa_config.flags.errors import BadContext, FlagsExtraMissing
from dsa_config.flags.schema import is_flaggable, json_types, type_in_json

try:
    from openfeature.event import ProviderEventDetails
    from openfeature.exception import FlagNotFoundError, InvalidContextError, ParseError, TypeMismatchError
    from openfeature.flag_evaluation import FlagResolutionDetails, Reason
    from openfeature.provider import AbstractProvider, Metadata
except ImportError as error:
    raise FlagsExtraMissing("openfeature-sdk") from error

if TYPE_CHECKING:
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.flag_evaluation import FlagValueType

    from dsa_config.live import Live

T = TypeVar("T")

Within = Callable[[FlagContext], AbstractContextManager[object]]

_NUMBERS = ("integer", "number")
_OBJECTS = ("object", "array")


class SettingsProvider(AbstractProvider):
    """Serves a live object's settings: the flag's key is a field's name, or any of its environment names.

    The variant is the layer that the value comes from, and the metadata tells the origin. A setting that is None has
    no type of OpenFeature: the caller's default stands, with reason DEFAULT. A secret is no flag.
    """

    def __init__(self, live: LiveSettings, *, within: Within | None = None) -> None:
        """Serve the settings of a live object.

        Args:
            live: what `dsa_config.live()` gives.
            within: makes a scope in which settings are read for an evaluation context. Without it the context of the
                call means nothing.
        """
        super().__init__()
        self._live = live
        self._class = cast("Live", live)._class
        self._types = json_types(self._class)
        self._within = within

    def changed(self, names: Iterable[str]) -> None:
        """Tell the clients that these settings have other values now."""
        self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=list(names)))

    def get_metadata(self) -> Metadata:
        """The name of the provider: the settings class's."""
        return Metadata(name=self._class.__name__)

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """A boolean setting."""
        return self._resolved(flag_key, default_value, evaluation_context, ("boolean",))

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """A setting whose values are text, or are written as text in JSON."""
        return self._resolved(flag_key, default_value, evaluation_context, ("string",))

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """An integer setting."""
        return self._resolved(flag_key, default_value, evaluation_context, ("integer",))

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """A setting that is a number; an integer is served as a float."""
        found = self._resolved(flag_key, default_value, evaluation_context, _NUMBERS)
        found.value = float(found.value)
        return found

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """A structured setting, as JSON has it."""
        return self._resolved(flag_key, default_value, evaluation_context, _OBJECTS)

    def _resolved(
        self, key: str, default: T, context: EvaluationContext | None, wanted: tuple[str, ...]
    ) -> FlagResolutionDetails[T]:
        with self._scope(context):
            try:
                told = self._live.explain(key)
            except UnknownSetting as error:
                raise FlagNotFoundError(str(error)) from error
            except SettingError as error:
                raise ParseError(str(error)) from error
        setting = settings_of(self._class)[told.name]
        if not is_flaggable(setting):
            raise FlagNotFoundError(f"{told.name} is a secret, which is not served")
        value: Any = to_jsonable_python(told.value)
        found, declared = type_in_json(value), self._types[told.name]
        fits = found in wanted if value is not None else not declared or not declared.isdisjoint(wanted)
        if not fits:
            raise TypeMismatchError(f"{told.name}={shown(value)} is not of type {' or '.join(wanted)}, but {found}")
        return FlagResolutionDetails(
            value=cast(T, default if value is None else value),
            reason=Reason.DEFAULT if value is None else _reason(told.source),
            variant=None if value is None else told.source,
            flag_metadata={"setting": told.name, "source": told.source, "origin": told.origin},
        )

    def _scope(self, context: EvaluationContext | None) -> AbstractContextManager[object]:
        if self._within is None or context is None:
            return nullcontext()
        known: dict[str, object] = dict(context.attributes)
        if context.targeting_key:
            known[TARGETING_KEY] = context.targeting_key
        try:
            return self._within(FlagContext.of(known))
        except BadContext as error:
            raise InvalidContextError(str(error)) from error


def _reason(source: str) -> Reason:
    """OpenFeature's word for a layer of ours: only flags depend on who asks."""
    if source == "default":
        return Reason.DEFAULT
    return Reason.TARGETING_MATCH if source.startswith("flag") else Reason.STATIC
