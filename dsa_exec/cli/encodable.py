"""Text of reports, which must be writable as JSON whatever it was made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def _encodable(given: Any) -> Any:
    """Names and values of the environment may hold bytes that are no UTF-8, for which JSON has no word."""
    return given.encode("utf-8", "backslashreplace").decode() if isinstance(given, str) else given


Text = Annotated[str, BeforeValidator(_encodable)]
