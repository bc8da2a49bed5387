"""What can go wrong with feature flags before a value is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from dsa_config.errors import Rejected, SettingError


class FlagFileError(SettingError, ValueError):
    """A flag file that is refused, whole: `path`, and `errors`, one sentence for each thing that is wrong in it."""

    def __init__(self, path: str, errors: Sequence[str]) -> None:
        self.path = path
        self.errors = tuple(errors)
        lines = "\n".join(f"  {error}" for error in self.errors)
        count = "1 error" if len(self.errors) == 1 else f"{len(self.errors)} errors"
        super().__init__(f"{path}: {count}, so that none of its flags is used:\n{lines}")


class BadContext(SettingError, ValueError):
    """A value that an evaluation context cannot hold: `key`, `given`."""

    def __init__(self, key: str, given: object, reason: str) -> None:
        self.key = key
        self.given = given
        super().__init__(f"evaluation context, {key!r}: {reason}")


class FlagsExtraMissing(SettingError, ImportError):
    """A package that feature flags need is not installed: `package`."""

    def __init__(self, package: str) -> None:
        self.package = package
        super().__init__(f"feature flags need {package}, which is not installed: pip install 'dsa[flags]'")


def reason_of(error: Exception) -> str:
    """Why a setting's parser does not take a value: `Rejected`, or whatever the user's own validator raises."""
    return error.reason if isinstance(error, Rejected) else str(error) or type(error).__name__
