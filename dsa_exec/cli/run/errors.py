"""What `dsa run` refuses."""

from __future__ import annotations

from dsa_exec.core.errors import DsaError


class RunError(DsaError):
    """What was asked for cannot be run: a prompt, a folder, options that do not go together. Says what is wanted."""
