"""A prefill of three requests on shuffled pages, attended to in any way, and the same worked out by hand."""

from __future__ import annotations

import dataclasses

import torch
from conformance_suite import DEVICE

from dsa_exec import MlaCache, record_calls
from dsa_exec.caches.samples import POISON, random_mla_cache
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.views import SlotMap, read_mla_tokens
from dsa_exec.runtime.attend import attend, slots_of
from dsa_exec.runtime.attention_path import AttentionPath
from dsa_exec.runtime.query_rows import QueryRows, query_rows

FP8, MODEL = MlaLayout(), MlaLayout("model", element_bytes=4)
SMALL = MlaLayout("model", page_tokens=4, latent_dim=32, rope_dim=16, element_bytes=4)
SPECULATIVE = ("target_verify", "draft_extend")
HEADS, SCALE = 3, 0.05
LENS, NEW = [130, 7, 64], [5, 7, 1]  # the second has no past, the third one new token: a batch that is mixed
PAGES = [[5, 0, 3], [1, -1, -1], [2, 6, 6]]


def ints(*numbers, dtype=torch.int32) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype, device=DEVICE)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def path(way: str, layout: MlaLayout = FP8, phase: str = "prefill") -> AttentionPath:
    return AttentionPath(way, phase, layout.format, "a test names it")


@dataclasses.dataclass(frozen=True)
class Batch:
    """A prefill of three requests on shuffled pages; tokens that no request has are NaN."""

    cache: MlaCache
    rows: QueryRows
    q: torch.Tensor
    sink: torch.Tensor

    def positions(self, k: int) -> torch.Tensor:
        """Each row's last k positions, ascending, -1 padded; all that it sees, if they are not more."""
        seen = (self.rows.ends - self.rows.starts)[:, None]
        at = torch.arange(k, device=DEVICE) + (seen - k).clamp(min=0)
        return at.where(at < seen, -1).to(torch.int32)

    def slots(self, positions: torch.Tensor) -> torch.Tensor:
        return slots_of(positions, self.rows, self.cache)

    def attend(self, way: str, selected: torch.Tensor | None, phase: str = "prefill"):
        rows = self.rows if phase == "prefill" else None
        given = path(way, self.cache.layout, phase)
        return attend(given, self.q, self.cache, selected, rows, sm_scale=SCALE, attn_sink=self.sink)


def batch(layout: MlaLayout) -> Batch:
    pages = PAGES if layout.page_tokens == 64 else [list(range(first, first + 40)) for first in (40, 0, 90)]
    count = 7 if layout.page_tokens == 64 else 140
    cache = random_mla_cache(torch.Generator().manual_seed(0), layout, count, DEVICE)
    rows = query_rows(ints(*pages), ints(*NEW), ints(*LENS), rows=sum(NEW), total_tokens=sum(LENS))
    request = torch.arange(len(LENS), device=DEVICE).repeat_interleave(ints(*LENS))
    position = torch.cat([torch.arange(it, device=DEVICE) for it in LENS])
    used = SlotMap(rows.page_table, layout.page_tokens, request).slots(position[:, None])[:, 0]
    unused = torch.ones(cache.slots, dtype=torch.bool, device=DEVICE)
    unused[used] = False
    cache.data[unused] = POISON if layout.format == "fp8" else torch.nan
    return Batch(cache, rows, normal(1, sum(NEW), HEADS, layout.width), normal(2, HEADS))


def check_same(got, wanted, tolerance: float = 2e-6) -> None:
    for left, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def calls(run) -> dict[str, int]:
    """How often each op ran."""
    with record_calls() as trace:
        run()
    return {op: count for (op, _), (_, count) in trace.decisions.items()}


def by_hand(it: Batch, positions: torch.Tensor):
    """Row by row in float64, over tokens that are looked up one by one."""
    out, lse = [], []
    for row, slots in enumerate(it.slots(positions).tolist()):
        chosen = torch.tensor([slot for slot in slots if slot >= 0], device=DEVICE)
        tokens = read_mla_tokens(it.cache.data, it.cache.layout, chosen).double()
        scores = it.q[row].double() @ tokens.T * SCALE
        row_lse = scores.logsumexp(1)
        weights = (scores - torch.logaddexp(row_lse, it.sink.double())[:, None]).exp()
        out.append(weights @ tokens[:, : it.cache.layout.latent_dim])
        lse.append(row_lse)
    return torch.stack(out).float(), torch.stack(lse).float()
