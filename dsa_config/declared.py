"""What a settings class declares, worked out once: each setting with its names, its parser and its facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, SchemaValidator
from pydantic_settings import BaseSettings

from dsa_config.controls import control_variables
from dsa_config.docstrings import field_docstrings
from dsa_config.errors import DeclarationError, Rejected
from dsa_config.grammar import Grammar, grammar_of
from dsa_config.renames import Deprecated, Merged, Renamed, with_prefix
from dsa_config.text import text_of
from dsa_config.versions import version_of

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings

Effect = Literal["call", "capture", "allocate", "process", "call and allocate"]
"""Until when a change still matters: the next call, the next CUDA-graph capture or compilation, the next cache
allocation, the next process; or at the next call, and for what caches are made like at their next allocation."""

LOADED_INSTEAD = (
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
"""Options of pydantic-settings that fix a source in the class. Live settings are told at load time."""

MASK = "**********"
"""What is shown in place of a secret."""

_OLD_TYPES = (bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Declared:
    """What `setting()` adds to a pydantic field. Rides in the field's metadata."""

    env: str | None = None
    deprecated_names: tuple[Deprecated, ...] = ()
    effect: Effect = "call"
    introduced: str | None = None
    may_differ: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """All there is to know about one declared setting. Made by `settings_of`."""

    name: str
    variable: str
    deprecated: tuple[Deprecated, ...]
    default: Any
    given_default: Any
    """The default as it was declared, before the field's validators saw it."""
    effect: Effect
    introduced: str | None
    may_differ: str
    """Why ranks that work together may have different values of it; empty: they must agree on it."""
    annotation: Any
    parse: Callable[[object], Any]
    """The field's one parser: text or a Python value in, the validated value out, or `Rejected`."""
    grammar: Grammar
    is_plain: bool
    """What the parser makes of a bool, number, text or None depends on nothing else, so that it can be kept."""
    owner: type[LiveSettings]

    @property
    def description(self) -> str:
        """What the setting is for, in one paragraph."""
        given = self.owner.model_fields[self.name].description or field_docstrings(self.owner).get(self.name, "")
        return " ".join(given.split())

    @property
    def allowed(self) -> str:
        """What the setting takes, in words."""
        return self.grammar.words()

    @property
    def is_mutable(self) -> bool:
        """Its values can be changed in place, so that every reader gets a copy."""
        return self.grammar.is_mutable

    @property
    def secret(self) -> bool:
        """Its values are never shown."""
        return self.grammar.is_secret

    @property
    def variables(self) -> tuple[str, ...]:
        """Every environment name that is read, strongest first."""
        return (self.variable, *(name for entry in self.deprecated for name in entry.names))

    def masked(self, value: Any) -> Any:
        """The value, or what is shown in its place."""
        return MASK if self.secret else value

    def text_of(self, value: Any) -> str:
        """The text that the setting's parser reads as this value."""
        return text_of(value)

    def old_values(self, entry: Deprecated, found: Mapping[str, Any]) -> list[Any]:
        """The values of deprecated names by their own types; None for a name that is not set.

        Raises:
            Rejected: a text is not of its name's type.
        """
        types: tuple[Any, ...] = entry.old_types if isinstance(entry, Merged) else (entry.old_type or self.annotation,)
        return [
            grammar_of(kind, ()).read(found[name]) if name in found else None
            for name, kind in zip(entry.names, types, strict=True)
        ]


def settings_of(cls: type[LiveSettings]) -> dict[str, Setting]:
    """The settings that a class declares, by field name.

    Raises:
        DeclarationError: an alias, a default that the field itself does not take, or a name used twice.
    """
    if "_dsa_settings" not in cls.__dict__:
        cls._dsa_settings = _settings_of(cls)  # type: ignore[attr-defined]
    return cls.__dict__["_dsa_settings"]  # type: ignore[no-any-return]


def grammars_of(cls: type[LiveSettings]) -> dict[str, Grammar]:
    """The grammar of every field of a class."""
    if "_dsa_grammars" not in cls.__dict__:
        fields = cls.model_fields.items()
        cls._dsa_grammars = {  # type: ignore[attr-defined]
            name: grammar_of(field.annotation, field.metadata) for name, field in fields
        }
    return cls.__dict__["_dsa_grammars"]  # type: ignore[no-any-return]


def _settings_of(cls: type[LiveSettings]) -> dict[str, Setting]:
    for option in LOADED_INSTEAD:
        wanted = True if option == "case_sensitive" else BaseSettings.model_config.get(option)
        if cls.model_config.get(option) != wanted:
            raise DeclarationError(
                f"{cls.__name__}: model_config[{option!r}] has no effect on live settings; files are named by "
                f"live({cls.__name__}).load(...) or by environment variables"
            )
    validator = _fields_validator(cls)
    prefix = str(cls.model_config.get("env_prefix", ""))
    found: dict[str, Setting] = {}
    for name, field in cls.model_fields.items():
        _require_declarable(cls, name, field)
        declared = _declared(cls, name)
        parse = _parser(validator, name)
        try:
            given_default = field.get_default(call_default_factory=True)
            default = parse(given_default)
        except Exception as error:  # whatever the user's own validator or factory raises
            raise DeclarationError(f"{cls.__name__}.{name}: the default is not allowed: {error!s}") from error
        variable = f"{prefix}{name.upper()}" if declared.env is None else declared.env
        renamed = tuple(declared.deprecated_names)
        found[name] = Setting(
            name=name,
            variable=variable,
            deprecated=(*renamed, *with_prefix(cls.deprecated_prefixes, prefix, variable)),
            default=default,
            given_default=given_default,
            effect=declared.effect,
            introduced=declared.introduced,
            may_differ=declared.may_differ,
            annotation=field.annotation,
            parse=parse,
            grammar=grammars_of(cls)[name],
            is_plain=grammars_of(cls)[name].is_plain and not _has_own_validator(cls, name),
            owner=cls,
        )
        _require_sound(cls, found[name])
    _require_distinct(cls, found)
    return found


def _require_declarable(cls: type[LiveSettings], name: str, field: FieldInfo) -> None:
    if field.alias or field.validation_alias:
        raise DeclarationError(
            f"{cls.__name__}.{name}: an alias would rename it in files and in the constructor too; "
            f"use setting(..., env=...) for its environment name"
        )
    if field.is_required():
        raise DeclarationError(f"{cls.__name__}.{name}: a live setting needs a default, so that it can always be read")


def _require_sound(cls: type[LiveSettings], setting: Setting) -> None:
    if setting.introduced is not None:
        version_of(setting.introduced, f"{cls.__name__}.{setting.name}")
    for entry in setting.deprecated:
        kinds = entry.old_types if isinstance(entry, Merged) else (entry.old_type,)
        for kind in kinds:
            if kind is not None and kind not in _OLD_TYPES:
                raise DeclarationError(
                    f"{cls.__name__}.{setting.name}: {entry.name} has type {kind!r}; wanted one "
                    f"of bool, int, float, str"
                )


def _require_distinct(cls: type[LiveSettings], settings: Mapping[str, Setting]) -> None:
    """One name means one setting, unless it was split on purpose; and no setting has the name of a control."""
    owners: dict[str, tuple[str, bool]] = dict.fromkeys(control_variables(cls), ("the settings themselves", False))
    owners |= {tombstone.name: ("a removed setting", False) for tombstone in cls.removed_names}
    for setting in settings.values():
        names = [(setting.variable, False)]
        for entry in setting.deprecated:
            names += [(name, isinstance(entry, Renamed) and entry.split) for name in entry.names]
        for variable, split in names:
            if not variable:
                raise DeclarationError(f"{cls.__name__}: {variable!r} is {setting.name}'s name; wanted a name")
            if variable in owners and not (split and owners[variable][1]):
                what = f"a name of both {owners[variable][0]} and {setting.name}"
                raise DeclarationError(f"{cls.__name__}: {variable!r} is {what}; a name means one setting")
            owners[variable] = (setting.name, split)


def _declared(cls: type[LiveSettings], name: str) -> Declared:
    """What `setting()` said of a field, in this class or the nearest base that says anything."""
    for base in cls.__mro__:
        field = getattr(base, "__pydantic_fields__", {}).get(name)
        for item in field.metadata if field is not None else ():
            if isinstance(item, Declared):
                return item
    return Declared()


def _has_own_validator(cls: type[LiveSettings], name: str) -> bool:
    """Whether the class or a base adds validators to the field beside ours."""
    decorators = cls.__pydantic_decorators__.field_validators
    return any(
        own != "_read_by_grammar" and ("*" in it.info.fields or name in it.info.fields)
        for own, it in decorators.items()
    )


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
