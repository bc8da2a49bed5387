"""What torchrun, or another launcher, has told this process in variables. Needs no torch."""

from __future__ import annotations

from dsa_config.tools.c_environment import python_environment


def may_be_told_prompts() -> bool:
    """Whether this process may be a rank after the first, which alone reads prompts: a pipe can be read once."""
    return python_environment().get("RANK", "0") != "0"


def threads_are_given() -> bool:
    """Whether somebody has said how many threads a process shall take; torchrun itself does, if nobody has."""
    return "OMP_NUM_THREADS" in python_environment()


def ranks_on_this_machine(ranks: int) -> int:
    """How many of so many ranks are on this machine: all, if the launcher does not say it."""
    return int(python_environment().get("LOCAL_WORLD_SIZE", ranks))
