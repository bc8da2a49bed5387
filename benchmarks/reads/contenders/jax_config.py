"""jax's configuration: one of its own flags, and its context manager around a read of it."""

from __future__ import annotations

from benchmarks.reads.contender import Contender, Subject


def _read() -> Subject:
    import jax

    return Subject("config.jax_debug_nans", {"config": jax.config}, ("JAX_DEBUG_NANS",))


def _scope() -> Subject:
    import jax

    names = {"config": jax.config, "debug_nans": jax.debug_nans}
    return Subject("with debug_nans(True): config.jax_debug_nans", names)


CONTENDERS = (
    Contender("jax.config flag", _read, library="jax"),
    Contender("jax context manager", _scope, library="jax", does="override"),
)
