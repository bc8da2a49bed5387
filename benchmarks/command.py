"""`python -m benchmarks`: the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.budget.command import add_command as add_budget
from benchmarks.dispatch.command import add_command as add_dispatch
from benchmarks.grid.command import add_command as add_grid
from benchmarks.ops.command import add_command as add_ops
from benchmarks.prove.command import add_command as add_prove
from benchmarks.ranks.command import add_command as add_ranks
from benchmarks.transformers.command import add_command as add_transformers


def main(arguments: Sequence[str]) -> int:
    """Run a benchmark; 0 all right, 1 something is wrong or a bar is missed under --check, 2 it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_command in (add_ops, add_grid, add_dispatch, add_budget, add_prove, add_ranks, add_transformers):
        add_command(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status
