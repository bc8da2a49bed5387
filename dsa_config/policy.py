"""How strictly names are treated, and at which version of the project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsa_config.errors import DeclarationError, SourceError
from dsa_config.renames import Phase, phase_of
from dsa_config.versions import Version, version_of

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings
    from dsa_config.declared import Setting
    from dsa_config.names import Word


@dataclass(frozen=True, slots=True)
class Policy:
    """How strictly names are treated, and at which version of the project.

    Attributes:
        version: None: the class names no version; then a deprecated name stays deprecated.
        fatal_deprecations: the use of a deprecated name is an error.
        fatal_conflicts: two names of a setting with different text are an error.
    """

    version: Version | None = None
    fatal_deprecations: bool = False
    fatal_conflicts: bool = False

    def phase(self, word: Word) -> Phase:
        """What the name of a word is at this version."""
        if word.entry is None:
            return "current"
        return "deprecated" if self.version is None else phase_of(word.entry, self.version)

    def has(self, setting: Setting) -> bool:
        """Whether the setting is there at this version."""
        if self.version is None or setting.introduced is None:
            return True
        return self.version >= version_of(setting.introduced, setting.name)


def policy_of(
    cls: type[LiveSettings],
    emulate_version: str | None = None,
    *,
    fatal_deprecations: bool = False,
    fatal_conflicts: bool = False,
) -> Policy:
    """The policy of a class, at its project's version or an emulated one.

    Raises:
        SourceError: the emulated version is none.
    """
    if emulate_version is None:
        version = cls.project_version
        what = f"{cls.__name__}.project_version"
        known = None if version is None else version_of(version, what)
    else:
        try:
            known = version_of(emulate_version, "emulate_version")
        except DeclarationError as error:
            raise SourceError("emulated version", [str(error)]) from None
    return Policy(known, fatal_deprecations, fatal_conflicts)
