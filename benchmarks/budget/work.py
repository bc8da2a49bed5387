"""The selections that are measured: a prefill of long context, with the keys that its rows see."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_exec.core.numerics import E4M3
from dsa_exec.ops.index_select import GatheredKeys

CHANNELS = 128


@dataclass(frozen=True, slots=True)
class Prefill:
    """Queries of many rows over many keys, which can be cut to shorter contexts.

    Attributes:
        q: e4m3 [rows, heads, 128].
        head_weights: f32 [rows, heads].
        keys: e4m3 [keys, 128].
        scales: f32 [keys].
        out: int32 [rows, k], for the selection.
    """

    q: torch.Tensor
    head_weights: torch.Tensor
    keys: torch.Tensor
    scales: torch.Tensor
    out: torch.Tensor

    @classmethod
    def make(cls, rows: int, keys: int, heads: int, k: int, device: torch.device) -> Prefill:
        """Random numbers, the same every time."""
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        q = torch.empty(rows, heads, CHANNELS, dtype=E4M3, device=device)
        for part in range(0, rows, 1024):  # in f32 they would be four times as large
            q[part : part + 1024] = normal(min(1024, rows - part), heads, CHANNELS).to(E4M3)
        out = torch.empty(rows, k, dtype=torch.int32, device=device)
        return cls(q, normal(rows, heads), normal(keys, CHANNELS).to(E4M3), normal(keys).abs() + 0.1, out)

    def arguments(self, context: int | None = None) -> tuple[torch.Tensor, torch.Tensor, GatheredKeys, int]:
        """What `index_select` takes; for a context of fewer keys, of which the last rows are the queries'."""
        rows, context = self.q.shape[0], context or self.keys.shape[0]
        ends = torch.arange(context - rows + 1, context + 1, device=self.q.device, dtype=torch.int32).clamp_(min=1)
        keys = GatheredKeys(self.keys[:context], self.scales[:context], torch.zeros_like(ends), ends)
        return self.q, self.head_weights, keys, self.out.shape[1]
