"""Which of the best keys of several parts are among the best of all: exactly, and the same on every rank."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dsa_exec.core.checks import MAX_K, Arguments
from dsa_exec.core.errors import RangeError, ShapeError
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.layouts.key_split import KeyPart, check_part
from dsa_exec.layouts.slot_map_check import check_slot_map
from dsa_exec.layouts.views import SlotMap
from dsa_exec.ops.topk_merge.custom_op import topk_merge_node

UNBOUND = 2**31 - 1
"""The last position of a bound that no position is beyond."""


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `topk_merge`. `numbered`: results are numbered as in the part that keeps its own."""

    candidates: torch.Tensor
    k: int
    bounds: torch.Tensor | None
    numbered: bool
    slot_map: SlotMap | None
    keep: KeyPart | None = field(compare=False)  # which it is is no reason to choose another backend
    in_order: bool

    @property
    def kept_parts(self) -> range:
        """The parts of `candidates` whose kept ones are given."""
        parts = len(self.candidates)
        if self.keep is None or self.bounds is not None:
            return range(parts)
        return range(self.keep.part, self.keep.part + 1)


@dataclass(frozen=True, slots=True)
class Merged:
    """What was kept.

    Attributes:
        picked: int32 [t, k], -1 padded.
        counts: int32 [t], how many of each row are kept, up to k: what is behind them is -1.
        bounds: int32 [t, 2], what separates those that are kept from the others: a key, and the last position that is
            kept of exactly that key, 2^31 - 1 if all are. Keys are the bits of scores, with all but the sign turned
            where it is negative, so that they are in the order of scores. More than one bound may separate the same.
    """

    picked: torch.Tensor
    counts: torch.Tensor
    bounds: torch.Tensor


def topk_merge(
    candidates: torch.Tensor,
    k: int,
    *,
    keep: KeyPart | None = None,
    bounds: torch.Tensor | None = None,
    slot_map: SlotMap | None = None,
    in_order: bool = False,
) -> Merged:
    """The k best of the candidates of all parts.

    If each part's candidates have the k best of that part, it is what `topk` picks of all keys: equal scores, the
    lowest position wins; NaN counts as -inf. No gradient passes.

    Args:
        candidates: int32 [p, t, 2, c], of each part what `topk_candidates` gives; c up to 4096, parts and rows as far
            apart as wanted. No position twice in a row.
        k: how many to keep, 1 to 4096.
        keep: give those of this part's own that are kept, numbered as in the part. None: give positions in the request.
        bounds: int32 [t, 2], those of an earlier call with all parts' candidates of these rows: nothing is searched
            for. With `keep`, the candidates are that part's alone (p = 1).
        slot_map: with `keep`, give slots of the part's pool; -1 where a position is on a page that it does not have.
        in_order: without `keep`, the positions of a part are all below those of the next one's in each row: as in a
            contiguous split, where nothing has to be sorted.

    Returns:
        What was kept, in the order of positions, how many, and the bounds.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above, or arguments that do not go together.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node():
        numbers = *_numbers_of_part(keep), *_numbers_of_slots(slot_map)
        return Merged(*topk_merge_node(candidates, k, bounds, in_order, *numbers))
    args = Arguments("topk_merge")
    parts, t, _, _ = args.tensor(candidates, "candidates", "p t 2 c", dtype=torch.int32)
    args.number(k, "k", low=1, high=MAX_K)
    if candidates.shape[3] > MAX_K:
        raise ShapeError("topk_merge", "candidates", f"has shape {list(candidates.shape)}", f"at most {MAX_K} of a row")
    if bounds is not None:
        args.tensor(bounds, "bounds", "t 2", dtype=torch.int32)
    if keep is not None:
        check_part(args, keep, "keep", t)
        wanted = keep.split.parts if bounds is None else 1
        if parts != wanted:
            which = "keep.split" if bounds is None else "bounds, the candidates of the part that keeps its own"
            raise ShapeError("topk_merge", "candidates", f"has {parts} parts", f"{wanted}, by {which}")
    if slot_map is not None:
        if keep is None:
            raise RangeError("topk_merge", "slot_map", "is given without `keep`", "None, or `keep`")
        check_slot_map(args, slot_map, "slot_map", t)
    with torch.no_grad():
        is_in_order = in_order or keep is not None or parts == 1
        call = Call(candidates, k, bounds, keep is not None, slot_map, keep, is_in_order)
        merged: Merged = run("topk_merge", call, candidates.device)
    return merged


def put_in_order(picked: torch.Tensor) -> torch.Tensor:
    """Positions of each row ascending, -1 last, where they come part by part: int32 [t, k]."""
    last = picked.where(picked >= 0, UNBOUND).sort(dim=1).values
    return last.where(last < UNBOUND, -1)


def _numbers_of_part(keep: KeyPart | None) -> tuple[int, int, torch.Tensor | None, int]:
    """As the node takes them: parts, the block or the blocks of rows, and which part; no parts if it is None."""
    if keep is None:
        return 0, 0, None, 0
    block = keep.split.block
    if isinstance(block, torch.Tensor):
        return keep.split.parts, 0, block, keep.part
    return keep.split.parts, block, None, keep.part


def _numbers_of_slots(slot_map: SlotMap | None) -> tuple[torch.Tensor | None, int, torch.Tensor | None, int, int]:
    """As the node takes them; no page table if it is None."""
    if slot_map is None:
        return None, 0, None, 0, 1
    table, of_row = slot_map.page_table, slot_map.request_of_row
    return table, slot_map.page_tokens, of_row, slot_map.slot_count, slot_map.rows_per_request
