"""Sources of text under environment names: dotenv files, folders of secrets, and cloud stores.

Each is read by pydantic-settings' own source, which gives names and texts; which name counts is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_settings import PydanticBaseSettingsSource

from dsa_config.declared import settings_of
from dsa_config.errors import SourceError
from dsa_config.names import Word, words_of
from dsa_config.origins import Origin
from dsa_config.sources.documents import read_text
from dsa_config.sources.positions import FilePlace, in_dotenv, line_of, whole_file

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings

CloudStore = Callable[[type[Any]], PydanticBaseSettingsSource]
"""Makes a source of pydantic-settings for a settings class; called at every load, because a source reads once."""


def dotenv_words(cls: type[LiveSettings], path: Path) -> tuple[dict[str, list[Word]], frozenset[str]]:
    """What a dotenv file says of each setting, and every name that is in it.

    Raises:
        SourceError: it cannot be read, or has a line that is no assignment.
    """
    import io

    from dotenv.parser import parse_stream
    from pydantic_settings import DotEnvSettingsSource

    text = read_text(path, "dotenv file")
    bad = [line_of(binding) for binding in parse_stream(io.StringIO(text)) if binding.error]
    if bad:
        raise SourceError(f"dotenv file {path}", [f"line {line} is no assignment" for line in bad])
    found = DotEnvSettingsSource(cls, env_file=path, env_file_encoding="utf-8", case_sensitive=True).env_vars

    def origin(variable: str) -> Origin:
        place = FilePlace(str(path), text, (variable,), in_dotenv)
        return Origin(f"dotenv variable {variable}", variable=variable, place=place)

    return _words(cls, found, origin), frozenset(found)


def secrets_words(cls: type[LiveSettings], folder: Path) -> tuple[dict[str, list[Word]], frozenset[str]]:
    """What a folder of secrets says of each setting, a file for each name; and the name of every file.

    Raises:
        SourceError: the folder or a file of it cannot be read.
    """
    from pydantic_settings import NestedSecretsSettingsSource, SecretsSettingsSource
    from pydantic_settings.exceptions import SettingsError

    plain = SecretsSettingsSource(cls, secrets_dir=None)
    try:
        source = NestedSecretsSettingsSource(
            plain, secrets_dir=folder, secrets_dir_missing="error", secrets_case_sensitive=True, secrets_prefix=""
        )
    except (SettingsError, OSError, ValueError) as error:
        raise SourceError(f"secrets folder {folder}", [f"cannot be read: {error}"]) from None

    def origin(variable: str) -> Origin:
        return Origin("secret", variable=variable, place=FilePlace(str(folder / variable), "", (), whole_file))

    return _words(cls, source.env_vars, origin), frozenset(source.env_vars)


def cloud_words(cls: type[LiveSettings], store: CloudStore) -> dict[str, list[Word]]:
    """What a cloud store says of each setting, under its environment names or its field name.

    Raises:
        SourceError: the store cannot be reached, or gives something that is no source.
    """
    name = getattr(store, "__name__", type(store).__name__)
    try:
        source = store(cls)
        if not isinstance(source, PydanticBaseSettingsSource):
            raise SourceError(f"cloud store {name}", [f"made {source!r}; wanted a source of pydantic-settings"])
        name = type(source).__name__
        texts: Any = getattr(source, "env_vars", None)
        found = _looked_up(cls, texts) if isinstance(texts, Mapping) else source()
    except SourceError:
        raise
    except Exception as error:  # whatever the vendor's client raises
        raise SourceError(f"cloud store {name}", [f"cannot be read: {type(error).__name__}: {error}"]) from error
    by_variable = dict(found)
    for setting in settings_of(cls).values():
        if setting.name in by_variable:
            by_variable.setdefault(setting.variable, by_variable[setting.name])
    return _words(cls, by_variable, lambda variable: Origin(f"cloud store {name}, {variable}", variable=variable))


def _looked_up(cls: type[LiveSettings], texts: Mapping[str, Any]) -> dict[str, Any]:
    """Our names alone: a store may hold much else, and fetch a value only when it is looked up."""
    names = [name for setting in settings_of(cls).values() for name in (*setting.variables, setting.name)]
    return {name: texts[name] for name in names if name in texts}


def _words(cls: type[LiveSettings], found: Mapping[str, Any], origin: Callable[[str], Origin]) -> dict[str, list[Word]]:
    given = {name: value for name, value in found.items() if value is not None}
    settings = settings_of(cls).values()
    return {setting.name: words for setting in settings if (words := words_of(setting, given, origin))}


def as_paths(paths: Sequence[str | Path] | str | Path | None) -> tuple[Path, ...]:
    """One path or several as a tuple, with `~` expanded.

    Raises:
        SourceError: a path begins with `~` and a user who has no home folder.
    """
    if paths is None:
        return ()
    listed = [paths] if isinstance(paths, str | Path) else paths
    try:
        return tuple(Path(path).expanduser() for path in listed)
    except RuntimeError as error:  # what pathlib raises for an unknown user
        raise SourceError(f"path {', '.join(map(str, listed))}", [str(error)]) from None
