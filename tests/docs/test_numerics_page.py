"""The bounds that docs/numerics.md tells are those of the contracts."""

from __future__ import annotations

import re
from pathlib import Path

from conformance_suite import CONTRACTS

import dsa_exec

PAGE = (Path(dsa_exec.__file__).parents[1] / "docs" / "numerics.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (?:`(\w+)`)? *\| ([^|]+?) \| ([^|]*?)\| ([^|]*?)\|$", PAGE, re.M)


def number(text: str) -> float:
    return 0.0 if text.strip() in ("", "to the bit") else float(text)


def test_the_table_has_the_bounds_of_every_contract():
    """A row for each tensor with a bound, and one without for an op that is exact."""
    told = {(op, name): (number(any_), number(gpu), single.strip()) for op, name, any_, gpu, single in ROWS}
    wanted = {}
    for op, contract in CONTRACTS.items():
        single = {name: f"`{it}` {share:.2g}" for it, of in contract.coarser.items() for name, share in of.items()}
        names = {*contract.tolerance, *contract.accelerated, *single} or {""}
        for name in names:
            bounds = contract.tolerance.get(name, 0.0), contract.accelerated.get(name, 0.0)
            wanted[op, name] = (*bounds, single.get(name, ""))
    assert told == wanted


def test_the_bounds_of_16_bits_are_told():
    """bf16 and f16 outputs, and the codes of a rotated query."""
    cases = {case.name: case.tolerance for contract in CONTRACTS.values() for case in contract.cases if case.tolerance}
    shares = {share for name, tolerance in cases.items() if "bf16" in name for share in tolerance.values()}
    assert shares == {0.008}
    assert cases["f16"] == {"out": 0.001}
    assert "bf16 are held to 0.008, in f16 to 0.001" in PAGE
