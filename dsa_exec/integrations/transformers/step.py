"""Where the rows of one forward pass go, what they see, and how they attend."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.core.hardware import Capabilities
from dsa_exec.integrations.transformers.padding import (
    pads_of_pass,
    require_same_padding,
    require_same_pads,
    said_pads,
)
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.views import SlotMap
from dsa_exec.runtime.attention_path import AttentionPath, AttentionSettings, Phase, attention_path
from dsa_exec.runtime.query_rows import QueryRows

_log = logging.getLogger("dsa_exec.runtime")

PAGE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Step:
    """Where the rows of one forward pass go and what they see. Worked out once, used by every layer.

    Attributes:
        slots: int64 [b * q], where each new token goes; -1 for padding.
        pads: int32 [b], tokens of padding before each request's first, after this pass.
        context_lens: int32 [b, q], positions of its request that each row sees.
        most_seen: no row sees more positions than so many.
        path: how the rows attend.
        rows: which tokens each row of a prefill may attend to; None in decode. Of padding, `ends` is not above
            `starts`.
    """

    slots: torch.Tensor
    pads: torch.Tensor
    context_lens: torch.Tensor
    most_seen: int
    path: AttentionPath
    rows: QueryRows | None

    @property
    def is_decode(self) -> bool:
        """One new token a request: keys and tokens are read from the pages, not gathered first."""
        return self.rows is None


def make_step(
    page_table: torch.Tensor,
    remembered_pads: torch.Tensor,
    windows: torch.Tensor,
    layout: MlaLayout,
    hw: Capabilities,
    index_topk: int,
    most_seen: int,
) -> Step:
    """Work out the step of a pass. That of a prefill waits for the device; that of a decode does not.

    Args:
        page_table: int32 [b, pages], where the windows are.
        remembered_pads: int32 [b], tokens of padding before each request's first, after the passes before.
        windows: int32 [b, 1, q, 2], what `visible_windows` gave.
        layout: of the MLA caches.
        hw: the device.
        index_topk: how many tokens the model selects for a row.
        most_seen: what a row of a decode sees at most.

    Raises:
        NotSupported: the pass says of its padding other than those before. A decode on an accelerator does not look,
            unless `debug_check_indices` is on.
        UnsupportedPath: a setting names a way of attending that the pass cannot take.
    """
    batch, _, count, _ = windows.shape
    pads = pads_of_pass(windows, remembered_pads)
    lens = windows[:, 0, :, 1] - pads[:, None]  # not above 0 for padding
    request = torch.arange(batch, device=windows.device).repeat_interleave(count)
    slots = SlotMap(page_table, PAGE_TOKENS, request).slots((lens.flatten() - 1)[:, None])[:, 0]
    context_lens = lens.clamp(min=0).contiguous()
    if count == 1:
        if not torch.compiler.is_compiling() and (windows.is_cpu or settings.debug_check_indices):
            require_same_padding(windows, pads)
        path = _path("decode", layout, hw, index_topk, None)
        return Step(slots, pads, context_lens, most_seen, path, None)
    seq_lens = lens[:, -1].clamp(min=0)
    host_lens, *host_pads = torch.stack([seq_lens, said_pads(windows), pads]).tolist()
    require_same_pads(*host_pads)
    longest = max(host_lens)
    path = _path("prefill", layout, hw, index_topk, longest)
    starts = (seq_lens.cumsum(0) - seq_lens)[request].to(torch.int32)
    rows = QueryRows(
        page_table=page_table,
        seq_lens=seq_lens,
        total_tokens=sum(host_lens),
        request_of_row=request,
        starts=starts,
        ends=starts + context_lens.flatten(),
    )
    return Step(slots, pads, context_lens, longest, path, rows)


def _path(phase: Phase, layout: MlaLayout, hw: Capabilities, index_topk: int, longest: int | None) -> AttentionPath:
    path = attention_path(phase, layout, hw, AttentionSettings.now(), index_topk=index_topk, longest_tokens=longest)
    if settings.debug_log_decisions:
        _log.info("%s attends by %s (%s)", path.phase, path.way, path.why)
    return path
