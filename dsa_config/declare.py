"""How a setting is declared: one line in an ordinary pydantic-settings class, everything else derived from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from pydantic import Field, GetJsonSchemaHandler, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dsa_config.declared import Declared, Effect, grammars_of, settings_of
from dsa_config.errors import DeclarationError, Rejected
from dsa_config.renames import Deprecated, Merged, Removed, Renamed, RenamedPrefix

if TYPE_CHECKING:
    from dsa_config.surface import Surface
else:
    Surface = object

T = TypeVar("T")


def setting(
    default: T,
    *,
    env: str | None = None,
    deprecated_names: Sequence[Deprecated] = (),
    effect: Effect = "call",
    introduced: str | None = None,
    may_differ: str = "",
    **field: Any,
) -> T:
    """Declare one setting of a `LiveSettings` class.

    Args:
        default: the value when nothing gives one.
        env: the environment variable, where it is not the class's prefix and the field's name in capitals.
        deprecated_names: earlier environment names, in order of precedence.
        effect: until when a change still matters.
        introduced: the version of the project that has the setting first.
        may_differ: why ranks that work together may have different values of it, in one clause; if it is left out,
            they must agree on it.
        **field: anything else that `pydantic.Field` takes, such as `ge=0`. The docstring under the field is its
            description, unless one is given here.
    """
    if not all(isinstance(entry, Renamed | Merged) for entry in deprecated_names):
        raise DeclarationError(
            f"deprecated_names={deprecated_names!r}: wanted Renamed(name, since=..., remove_in=...) or Merged(...)"
        )
    info: FieldInfo = Field(default, **field)
    info.metadata.append(Declared(env, tuple(deprecated_names), effect, introduced, may_differ))
    return cast(T, info)


class LiveSettings(BaseSettings, Surface):
    """Base of every settings class: an ordinary pydantic-settings model whose instances are frozen snapshots.

    `live(Class)` makes the object whose attributes are read at call time. `Class()` reads the environment once,
    through the same parsers.
    """

    model_config = SettingsConfigDict(case_sensitive=True, frozen=True, extra="forbid", validate_default=True)

    deprecated_prefixes: ClassVar[Sequence[RenamedPrefix]] = ()
    """Prefixes that all environment names of the class used to have."""

    removed_names: ClassVar[Sequence[Removed]] = ()
    """Names that no setting has any more."""

    project_version: ClassVar[str | None] = None
    """The version of the project that declares the class: deprecated names go through their phases by it."""

    config_table: ClassVar[tuple[str, ...]] = ("tool", "settings")
    """The table of a pyproject.toml that holds the settings."""

    headings: ClassVar[Mapping[str, str]] = {}
    """Headings for generated documents: each by the name of the field that begins its group."""

    read_by: ClassVar[tuple[str, ...]] = ()
    """The packages whose code reads the settings, so that tools can tell of settings that nobody reads."""

    called_by: ClassVar[tuple[str, ...]] = ()
    """Packages that call those for their users: what is told of a line is told of the user's, beyond all of them."""

    @field_validator("*", mode="before")
    @classmethod
    def _read_by_grammar(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        grammar = grammars_of(cls)[info.field_name]
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
            if declared.description:
                entry.setdefault("description", declared.description)
            entry["x-environment"] = declared.variable
            if declared.deprecated:
                entry["x-deprecated-names"] = list(declared.variables[1:])
            entry["x-effect"] = declared.effect
            entry["x-ranks"] = "may differ" if declared.may_differ else "must agree"
        return document
