"""What the integration does not do, and checkpoints that cannot be run."""

from __future__ import annotations

from dsa_exec.core.errors import DsaError


class NotSupported(DsaError, RuntimeError):
    """A model, or a way of calling one, that our attention does not support. Says what to do instead."""


class NotFinite(DsaError):
    """A model whose logits are NaN or infinite, so that no token is the likeliest."""


class CheckpointError(DsaError):
    """A folder that is no checkpoint that can be run: missing, foreign, incomplete or damaged. Says which file."""
