"""What the time of an op is made of: its terms as functions of the work. A fit gives each term its microseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

SELECTED = 2048
"""Keys that a row selects in the records: attention over fewer takes that share of the time."""


class Work(NamedTuple):
    """One call of an op.

    Attributes:
        rows: query rows: tokens of a prefill, requests of a decode step.
        keys: that each row may select from: of a prefill those that its last row sees, the first seeing fewer. For
            attention the keys that a row has selected.
        heads: of the indexer, or those of attention that a rank has.
    """

    rows: float
    keys: float
    heads: int

    @property
    def pairs(self) -> float:
        """Rows times the keys that they see, in a causal prefill of the last `rows` tokens of `keys`."""
        return self.rows * self.keys - self.rows * (self.rows - 1) / 2


Terms = Mapping[str, Callable[[Work], float]]

OPS: Mapping[str, Terms] = {
    "index_select prefill": {
        "call": lambda _: 1.0,
        "row": lambda it: it.rows,
        "pair": lambda it: it.pairs,
        "pair of a head": lambda it: it.pairs * it.heads,
    },
    "index_select decode": {
        "call": lambda _: 1.0,
        "request": lambda it: it.rows,
        "key of the longest": lambda it: it.keys,
        "key": lambda it: it.rows * it.keys,
    },
    "topk": {"call": lambda _: 1.0, "row": lambda it: it.rows, "key": lambda it: it.rows * it.keys},
    "sparse_mla_prefill": {"selected key": lambda it: it.rows * it.keys},
    "sparse_mla_decode": {"call": lambda _: 1.0, "selected key": lambda it: it.rows * it.keys},
}
"""Each op's terms. Attention has a fit for each number of heads that was measured, the others one for all."""

BY_HEADS = frozenset({"sparse_mla_prefill", "sparse_mla_decode"})
