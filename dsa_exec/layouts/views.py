"""The layouts as torch views of cache bytes, and page tables as index arithmetic. No copies, int64 throughout."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import TILE, IndexKLayout
from dsa_exec.layouts.mla_kv import GROUP, MlaLayout


def index_key_view(data: torch.Tensor, layout: IndexKLayout) -> torch.Tensor:
    """The keys of an index-K cache in the fp8 format.

    Args:
        data: uint8 [pages, page_bytes].
        layout: the cache's layout.

    Returns:
        e4m3, a view: [pages, page_tokens, 128] for plain pages; for preshuffled ones
        [pages, page_tokens / 16, 16, 8, 16], tokens in dimensions 1 and 2, channels in 3 and 4.
    """
    keys = data[:, : layout.scales_offset_bytes].view(E4M3)
    if layout.order == "plain":
        return keys.unflatten(1, (layout.page_tokens, layout.head_dim))
    tiles = keys.unflatten(1, (layout.page_tokens // TILE, layout.head_dim // TILE, TILE, TILE))
    return tiles.permute(0, 1, 3, 2, 4)


def index_scale_view(data: torch.Tensor, layout: IndexKLayout) -> torch.Tensor:
    """The scales of an fp8 index-K cache: f32 [pages, page_tokens], a view of uint8 [pages, page_bytes]."""
    return data[:, layout.scales_offset_bytes :].view(torch.float32)


def read_index_keys(
    data: torch.Tensor, layout: IndexKLayout, slots: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Copies of the keys in some slots of an index-K cache.

    Args:
        data: the cache's tensor.
        layout: its layout.
        slots: int64 [n], all of them in the cache.

    Returns:
        keys [n, head_dim], e4m3 or the model's dtype; scales f32 [n], or None in the model format.
    """
    page, token = slots // layout.page_tokens, slots % layout.page_tokens
    if layout.format == "model":
        return data[page, token], None
    view = index_key_view(data, layout).view(data.dtype)  # as bytes: not every device can index e4m3
    keys = view[page, token] if layout.order == "plain" else view[page, token // TILE, token % TILE].flatten(1)
    return keys.view(E4M3), index_scale_view(data, layout)[page, token]


def mla_latent_view(data: torch.Tensor, layout: MlaLayout) -> torch.Tensor:
    """The latents of an fp8 MLA cache: e4m3 [slots, latent_dim], a view of uint8 [slots, token_bytes]."""
    return data[:, : layout.latent_dim].view(E4M3)


def mla_scale_view(data: torch.Tensor, layout: MlaLayout) -> torch.Tensor:
    """The scales of an fp8 MLA cache: f32 [slots, latent_dim / 128], a view of uint8 [slots, token_bytes]."""
    return data[:, layout.scales_offset_bytes : layout.rope_offset_bytes].view(torch.float32)


def mla_rope_view(data: torch.Tensor, layout: MlaLayout) -> torch.Tensor:
    """The RoPE parts of an fp8 MLA cache: bf16 [slots, rope_dim], a view of uint8 [slots, token_bytes]."""
    return data[:, layout.rope_offset_bytes :].view(torch.bfloat16)


@dataclass(frozen=True, slots=True)
class SlotMap:
    """How positions of rows become slots of a pool.

    Attributes:
        page_table: int32 [b, pages], the pages of each request in order. Negative pages are none.
        page_tokens: tokens a page.
        request_of_row: int [t], which request each row belongs to; None where the rows lie request by request, as many
            of each.
        slot_count: how many slots the pool has; by default as many as an int32 can number.
        rows_per_request: how many rows each request has, if `request_of_row` is None; nothing looks at it otherwise.
    """

    page_table: torch.Tensor
    page_tokens: int
    request_of_row: torch.Tensor | None
    slot_count: int = 2**31
    rows_per_request: int = 1

    def of_rows(self, rows: slice) -> SlotMap:
        """The same for some rows that lie side by side, from `rows.start` to `rows.stop`."""
        if self.request_of_row is not None:
            return dataclasses.replace(self, request_of_row=self.request_of_row[rows])
        numbers = torch.arange(rows.start, rows.stop, device=self.page_table.device)
        return dataclasses.replace(self, request_of_row=numbers // self.rows_per_request)

    def slots(self, positions: torch.Tensor) -> torch.Tensor:
        """Slots of positions.

        Args:
            positions: int [t, k], in the row's request; negative means none.

        Returns:
            int64 [t, k]; -1 where the position is negative or beyond the table, its page not in the pool, or the row
            of a request that is not in the table.
        """
        positions = positions.long()
        page, offset = positions // self.page_tokens, positions % self.page_tokens
        requests, width = self.page_table.shape
        if requests == 0 or width == 0:
            return torch.full_like(positions, -1)
        of_row = self.of_rows(slice(0, len(positions))).request_of_row
        assert of_row is not None
        rows = of_row.long()[:, None].expand_as(page)
        known = (positions >= 0) & (page < width) & (rows >= 0) & (rows < requests)
        slots = self.page_table[rows.where(known, 0), page.where(known, 0)].long() * self.page_tokens + offset
        return slots.where(known & (slots >= 0) & (slots < self.slot_count), -1)


def finer_page_table(page_table: torch.Tensor, ratio: int) -> torch.Tensor:
    """The same slots under pages of a part of the tokens.

    Args:
        page_table: int32 [b, pages]. Negative pages are none.
        ratio: how many of the smaller pages make a page.

    Returns:
        int32 [b, pages * ratio]; -1 for no page, and where the number of a smaller page does not fit an int32.
    """
    finer = page_table.long()[:, :, None] * ratio + torch.arange(ratio, device=page_table.device)
    return finer.where((finer >= 0) & (finer < 2**31), -1).flatten(1).to(torch.int32)


def request_slots(
    page_table: torch.Tensor, seq_lens: torch.Tensor, page_tokens: int, total_tokens: int, slot_count: int = 2**31
) -> torch.Tensor:
    """The slots of all tokens of all requests, one request after the other.

    Args:
        page_table: int32 [b, pages].
        seq_lens: int [b], tokens of each request; a negative length counts as 0.
        page_tokens: tokens a page.
        total_tokens: the sum of `seq_lens`.
        slot_count: how many slots the pool has; by default as many as an int32 can number.

    Returns:
        int64 [total_tokens]; -1 for tokens beyond the page table, beyond the last request, or on pages that the pool
        does not have.
    """
    tokens = torch.arange(total_tokens, device=seq_lens.device)
    if seq_lens.shape[0] == 0:
        return torch.full_like(tokens, -1)
    lens = seq_lens.long().clamp(min=0)
    ends = lens.cumsum(0)
    request = torch.searchsorted(ends, tokens, right=True)
    starts = (ends - lens)[request.clamp(max=lens.shape[0] - 1)]
    return SlotMap(page_table, page_tokens, request, slot_count).slots((tokens - starts)[:, None])[:, 0]


def read_mla_tokens(data: torch.Tensor, layout: MlaLayout, slots: torch.Tensor) -> torch.Tensor:
    """The tokens in some slots of an MLA cache, dequantised.

    Args:
        data: the cache's tensor.
        layout: its layout.
        slots: int64 [n], all of them in the cache.

    Returns:
        f32 [n, latent_dim + rope_dim].
    """
    if layout.format == "model":
        return data[slots].float()
    chosen = data[slots]
    latent = mla_latent_view(chosen, layout).float().unflatten(1, (-1, GROUP))
    latent = latent * mla_scale_view(chosen, layout)[..., None]
    return torch.cat([latent.flatten(1), mla_rope_view(chosen, layout).float()], dim=1)
