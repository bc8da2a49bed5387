from __future__ import annotations

import math

import torch


def oracle(logits, lengths, k, row_starts=None, slot_map=None):
    rows = []
    width = logits.shape[1]
    starts = [0] * len(lengths) if row_starts is None else row_starts.tolist()
    for row, (values, length, start) in enumerate(zip(logits.tolist(), lengths.tolist(), starts, strict=True)):
        window = range(start, min(width, start + max(length, 0)))
        by_rank = sorted(window, key=lambda at: (math.inf if math.isnan(values[at]) else -values[at], at))
        picked = sorted(at - start for at in by_rank[:k])
        if slot_map is not None:
            picked = [_slot(slot_map, row, position) for position in picked]
        rows.append(picked + [-1] * (k - len(picked)))
    return {"positions": torch.tensor(rows, dtype=torch.int32).reshape(len(rows), k)}


def _slot(slot_map, row: int, position: int) -> int:
    of_row = slot_map.request_of_row
    request = row // slot_map.rows_per_request if of_row is None else int(of_row[row])
    table = slot_map.page_table[request].tolist()
    page, offset = divmod(position, slot_map.page_tokens)
    slot = table[page] * slot_map.page_tokens + offset if page < len(table) else -1
    return slot if 0 <= slot < slot_map.slot_count else -1
