"""What stops a migration: a file that cannot be parsed or replaced, or a parser that is not installed."""

from __future__ import annotations

from dsa_config.errors import SettingError


class Unparsable(SettingError, ValueError):
    """A file that is not what its kind says: `why`, and the line if the parser tells one."""

    def __init__(self, why: str, line: int | None = None) -> None:
        self.line = line
        self.why = why
        super().__init__(why if line is None else f"line {line}: {why}")


class NotReplaceable(SettingError, OSError):
    """A file that cannot be replaced whole and alike: `why`."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class ExtraMissing(SettingError, ImportError):
    """A parser is not installed: `package`, and the `extra` that brings it."""

    def __init__(self, package: str, kind: str) -> None:
        self.package = package
        self.extra = "migrate"
        super().__init__(f"migrating {kind} files needs {package}, which the extra brings: pip install 'dsa[migrate]'")
