from __future__ import annotations

import math

import torch


def oracle(candidates, k, keep=None, bounds=None, slot_map=None, in_order=False):
    parts, rows = candidates.shape[:2]
    picked, counts = [], []
    for row in range(rows):
        told = []
        for part in range(parts):
            scores = candidates[part, row, 0].contiguous().view(torch.float32).tolist()
            for score, position in zip(scores, candidates[part, row, 1].tolist(), strict=True):
                if position >= 0:
                    told.append((-math.inf if math.isnan(score) else score, position, part))
        if bounds is None:
            told.sort(key=lambda it: (-it[0], it[1]))
            kept = told[:k]
        else:
            least, last = bounds[row].tolist()
            kept = [it for it in told if key_of(it[0]) > least or (key_of(it[0]) == least and it[1] <= last)]
        if keep is not None and bounds is None:
            kept = [it for it in kept if it[2] == keep.part]
        numbers = sorted(it[1] for it in kept)
        if keep is not None:
            tokens = keep.split.block if isinstance(keep.split.block, int) else int(keep.split.block[row])
            numbers = [it // (tokens * keep.split.parts) * tokens + it % tokens for it in numbers]
        if slot_map is not None:
            numbers = [_slot(slot_map, row, it) for it in numbers]
        counts.append(len(numbers))
        picked.append(numbers + [-1] * (k - len(numbers)))
    return {"picked": torch.tensor(picked, dtype=torch.int32).reshape(rows, k), "counts": torch.tensor(counts).int()}


def key_of(score: float) -> int:
    bits = int(torch.tensor(score + 0.0, dtype=torch.float32).view(torch.int32))
    return bits if bits >= 0 else bits ^ 0x7FFFFFFF


def _slot(slot_map, row: int, position: int) -> int:
    of_row = slot_map.request_of_row
    request = row // slot_map.rows_per_request if of_row is None else int(of_row[row])
    table = slot_map.page_table[request].tolist()
    page, offset = divmod(position, slot_map.page_tokens)
    slot = table[page] * slot_map.page_tokens + offset if page < len(table) else -1
    return slot if 0 <= slot < slot_map.slot_count else -1
