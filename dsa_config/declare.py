"""How a setting is declared: one line in an ordinary pydantic-settings class, everything else derived from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from pydantic import Field, GetJsonSchemaHandler, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, SchemaValidator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dsa_config.errors import DeclarationError, Rejected
from dsa_config.grammar import Grammar, grammar_of

if TYPE_CHECKING:
    from dsa_config.explain import Explanation
    from dsa_config.overrides import Override

Effect = Literal["call", "capture", "allocate", "process"]
"""Until when a change still matters: the next call, the next CUDA-graph capture or compilation, the next cache
allocation, the next process."""

READ_BY_OTHER_SOURCES = (
    "case_sensitive",
    "env_file",
    "env_ignore_empty",
    "env_nested_delimiter",
    "env_parse_none_str",
    "json_file",
    "pyproject_toml_table_header",
    "secrets_dir",
    "toml_file",
    "yaml_file",
)
"""Options of pydantic-settings for sources that a live object does not have."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Renamed:
    """An environment name that a setting used to have: still read, never written, and reported when it is used."""

    name: str
    since: str
    remove_in: str


@dataclass(frozen=True, slots=True)
class _Declared:
    """What `setting()` adds to a pydantic field. Rides in the field's metadata."""

    env: str | None = None
    deprecated_names: tuple[Renamed, ...] = ()
    effect: Effect = "call"


def setting(
    default: T,
    *,
    env: str | None = None,
    deprecated_names: Sequence[Renamed] = (),
    effect: Effect = "call",
    **field: Any,
) -> T:
    """Declare one setting of a `LiveSettings` class.

    Args:
        default: the value when nothing gives one.
        env: the environment variable, where it is not the class's prefix and the field's name in capitals.
        deprecated_names: earlier environment names, in order of precedence.
        effect: until when a change still matters.
        **field: anything else that `pydantic.Field` takes, such as `ge=0`.
    """
    if not all(isinstance(renamed, Renamed) for renamed in deprecated_names):
        raise DeclarationError(f"deprecated_names={deprecated_names!r}: wanted Renamed(name, since=..., remove_in=...)")
    info: FieldInfo = Field(default, **field)
    info.metadata.append(_Declared(env, tuple(deprecated_names), effect))
    return cast(T, info)


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """All there is to know about one declared setting. Made by `settings_of`."""

    name: str
    variable: str
    deprecated: tuple[Renamed, ...]
    default: Any
    given_default: Any
    """The default as it was declared, before the field's validators saw it."""
    effect: Effect
    description: str
    parse: Callable[[object], Any]
    """The field's one parser: text or a Python value in, the validated value out, or `Rejected`."""
    _grammar: Grammar

    @property
    def allowed(self) -> str:
        """What the setting takes, in words."""
        return self._grammar.words()

    @property
    def is_mutable(self) -> bool:
        """Its values can be changed in place, so that every reader gets a copy."""
        return self._grammar.is_mutable

    @property
    def variables(self) -> tuple[str, ...]:
        """Every environment name that is read, strongest first."""
        return (self.variable, *(renamed.name for renamed in self.deprecated))


class LiveSettings(BaseSettings):
    """Base of every settings class: an ordinary pydantic-settings model whose instances are frozen snapshots.

    `live(Class)` makes the object whose attributes are read at call time. `Class()` reads the environment once,
    through the same parsers.
    """

    model_config = SettingsConfigDict(
        case_sensitive=True, frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read_by_grammar(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        grammar = _grammars(cls)[info.field_name]
        try:
            return grammar.read(value)
        except Rejected as rejected:
            raise Rejected(rejected.reason, grammar.words()) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was given to the constructor, then the environment by our names and grammar."""
        from dsa_config.sources.construct import EnvironmentSource

        return init_settings, EnvironmentSource(settings_cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        document = handler.resolve_ref_schema(handler(schema))
        for name, declared in settings_of(cls).items():
            entry = document.get("properties", {}).get(name)
            if entry is None:  # excluded from serialisation, or hidden from the schema
                continue
            entry["x-environment"] = declared.variable
            if declared.deprecated:
                entry["x-deprecated-names"] = [renamed.name for renamed in declared.deprecated]
            entry["x-effect"] = declared.effect
        return document

    if TYPE_CHECKING:  # what `live(Class)` adds, so that editors and type checkers know it

        def override(self, /, **values: object) -> Override:
            """Values for a scope: this thread or asyncio task, and the tasks that it starts."""

        def set(self, /, **values: object) -> None:
            """Values for the whole process, until `reset`."""

        def reset(self, /, *names: str) -> None:
            """Take back what `set` gave: for these settings, or for all if none is named."""

        def explain(self, name: str) -> Explanation:
            """Why a setting (or the setting of an environment name) has its value."""

        def snapshot(self) -> Self:
            """All values as of now, frozen."""


def settings_of(cls: type[LiveSettings]) -> dict[str, Setting]:
    """The settings that a class declares, by field name.

    Raises:
        DeclarationError: an alias, a default that the field itself does not take, or a name used twice.
    """
    if "_dsa_settings" not in cls.__dict__:
        cls._dsa_settings = _settings_of(cls)  # type: ignore[attr-defined]
    return cls.__dict__["_dsa_settings"]  # type: ignore[no-any-return]


def _settings_of(cls: type[LiveSettings]) -> dict[str, Setting]:
    for option in READ_BY_OTHER_SOURCES:
        if cls.model_config.get(option) != LiveSettings.model_config.get(option):
            raise DeclarationError(f"{cls.__name__}: model_config[{option!r}] has no effect on live settings")
    validator = _fields_validator(cls)
    prefix = cls.model_config.get("env_prefix", "")
    found: dict[str, Setting] = {}
    owners: dict[str, str] = {}
    for name, field in cls.model_fields.items():
        _require_declarable(cls, name, field)
        declared = _declared(cls, name)
        parse = _parser(validator, name)
        try:
            given_default = field.get_default(call_default_factory=True)
            default = parse(given_default)
        except Exception as error:  # whatever the user's own validator or factory raises
            raise DeclarationError(f"{cls.__name__}.{name}: the default is not allowed: {error!s}") from error
        found[name] = Setting(
            name=name,
            variable=f"{prefix}{name.upper()}" if declared.env is None else declared.env,
            deprecated=declared.deprecated_names,
            default=default,
            given_default=given_default,
            effect=declared.effect,
            description=" ".join((field.description or "").split()),
            parse=parse,
            _grammar=_grammars(cls)[name],
        )
        for variable in found[name].variables:
            if variable in owners or not variable:
                what = f"a name of both {owners[variable]} and {name}" if variable else f"{name}'s name"
                raise DeclarationError(f"{cls.__name__}: {variable!r} is {what}; a name means one setting")
            owners[variable] = name
    return found


def _require_declarable(cls: type[LiveSettings], name: str, field: FieldInfo) -> None:
    if field.alias or field.validation_alias:
        raise DeclarationError(
            f"{cls.__name__}.{name}: an alias would rename it in files and in the constructor too; "
            f"use setting(..., env=...) for its environment name"
        )
    if field.is_required():
        raise DeclarationError(f"{cls.__name__}.{name}: a live setting needs a default, so that it can always be read")


def _declared(cls: type[LiveSettings], name: str) -> _Declared:
    """What `setting()` said of a field, in this class or the nearest base that says anything."""
    for base in cls.__mro__:
        field = getattr(base, "__pydantic_fields__", {}).get(name)
        for item in field.metadata if field is not None else ():
            if isinstance(item, _Declared):
                return item
    return _Declared()


def _grammars(cls: type[LiveSettings]) -> dict[str, Grammar]:
    if "_dsa_grammars" not in cls.__dict__:
        fields = cls.model_fields.items()
        cls._dsa_grammars = {  # type: ignore[attr-defined]
            name: grammar_of(field.annotation, field.metadata) for name, field in fields
        }
    return cls.__dict__["_dsa_grammars"]  # type: ignore[no-any-return]


def _fields_validator(cls: type[LiveSettings]) -> SchemaValidator:
    """Validates fields one by one, by the class's configuration, without any validator of the whole model."""
    schema: Any = cls.__pydantic_core_schema__
    definitions: list[CoreSchema] = []
    config: Any = None
    while schema["type"] != "model-fields":
        definitions += schema.get("definitions", ())
        config = schema.get("config", config)
        schema = schema["schema"]
    whole = {"type": "definitions", "schema": schema, "definitions": definitions} if definitions else schema
    return SchemaValidator(whole, config)


def _parser(validator: SchemaValidator, name: str) -> Callable[[object], Any]:
    def parse(given: object) -> Any:
        try:
            values: Any = validator.validate_assignment({}, name, given)
        except ValidationError as error:
            raise Rejected(_reason(error)) from None
        return values[0][name]

    return parse


def _reason(error: ValidationError) -> str:
    """One clause for what pydantic found wrong."""
    clauses = []
    for detail in error.errors(include_url=False, include_input=False):
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, Rejected):
            clause = cause.reason
        else:
            clause = str(cause) if isinstance(cause, Exception) else detail["msg"][:1].lower() + detail["msg"][1:]
        place = ".".join(map(str, detail["loc"][1:]))
        clauses.append(f"{place}: {clause}" if place else clause)
    return "; ".join(dict.fromkeys(clauses))
