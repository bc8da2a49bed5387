from __future__ import annotations

import torch


def oracle(logits, picked, part, row_starts=None):
    rows, k = picked.shape
    scores, positions = torch.zeros(rows, k), torch.full((rows, k), -1, dtype=torch.int32)
    parts, block = part.split.parts, part.split.block
    for row in range(rows):
        start = 0 if row_starts is None else int(row_starts[row])
        tokens = block if isinstance(block, int) else int(block[row])
        for nth, place in enumerate(picked[row].tolist()):
            if place < 0 or not 0 <= place + start < logits.shape[1]:
                continue
            turn, within = divmod(place, tokens)
            position = (turn * parts + part.part) * tokens + within
            if position < 2**31 - 1:
                scores[row, nth] = logits[row, place + start]
                positions[row, nth] = position
    return {"bits": scores.view(torch.int32), "positions": positions}
