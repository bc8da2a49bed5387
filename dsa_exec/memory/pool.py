"""One pool of a plan: what it holds, and every number about its bytes.

Bytes are integers and exact: they count padding, the extra pages, and what does not grow with tokens. Numbers for each
token of context, which can be fractions in V4, are `Fraction` where they are exact, and are rounded up where they are
integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from dsa_exec.layouts.dsv4 import Fp4IndexLayout, StateLayout, V4KvLayout
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout

PoolLayout = MlaLayout | IndexKLayout | V4KvLayout | Fp4IndexLayout | StateLayout


@dataclass(frozen=True, slots=True)
class Pool:
    """One kind of cache of one rank: for each of its layers a tensor of `pages` pages, which all look alike.

    An entry is what the pool keeps for one or more tokens: a token's KV, or that of 4 or 128 tokens, or a row of state.

    Attributes:
        name: mla_kv, index_k; in V4 swa_kv, c4_kv, c128_kv, c4_index_k, c4_state, c4_index_state, c128_state.
        holds: what is in it, in words.
        layers: the layers that have it, by their numbers in the model; draft layers are numbered after the last layer.
        tokens: entries that can be given out. Those of the extra pages come on top.
        page_tokens: entries a page.
        pages: pages of one layer, with the extra ones.
        extra_pages: those of them that are never given out: padded rows of a batch are written there.
        entry_bytes: one entry of one layer.
        page_bytes: one page of one layer, with its padding.
        entries_per_token: how many entries the pool has for each token of context; 0 if it does not grow with tokens.
        layout: what the bytes of a layer mean. It travels to the tensors.
    """

    name: str
    holds: str
    layers: tuple[int, ...]
    tokens: int
    page_tokens: int
    pages: int
    extra_pages: int
    entry_bytes: int
    page_bytes: int
    entries_per_token: Fraction
    layout: PoolLayout

    @property
    def layer_bytes(self) -> int:
        """What the pool takes in one layer."""
        return self.pages * self.page_bytes

    @property
    def bytes(self) -> int:
        """What the pool takes on this rank, exactly: all layers, pages with padding, extra pages."""
        return self.layer_bytes * len(self.layers)

    @property
    def exact_bytes_per_token(self) -> Fraction:
        """What a token of context costs in all layers, without padding: the published formula's term."""
        return self.entries_per_token * self.entry_bytes * len(self.layers)

    @property
    def bytes_per_token(self) -> int:
        """The same, rounded up. 0 if the pool does not grow with tokens."""
        return math.ceil(self.exact_bytes_per_token)

    @property
    def padding_bytes(self) -> int:
        """Bytes of `bytes` that pad pages, in all layers."""
        return (self.page_bytes - self.page_tokens * self.entry_bytes) * self.pages * len(self.layers)

    @property
    def extra_bytes(self) -> int:
        """Bytes of `bytes` that are extra pages, in all layers, padding included."""
        return self.extra_pages * self.page_bytes * len(self.layers)

    @property
    def fixed_bytes(self) -> int:
        """Bytes of `bytes` that do not grow with tokens: the extra pages, or all of a pool of requests' state."""
        return self.extra_bytes if self.entries_per_token else self.bytes
