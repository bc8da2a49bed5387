from __future__ import annotations

import math

from oracles.index_k_bytes import matrix, score


def oracle(q, keys, scales, head_weights, starts, ends, clean=True, out=None):
    queries, columns = q.float().tolist(), keys.float().tolist()
    factors = [1.0] * len(columns) if scales is None else scales.tolist()
    rows = []
    for query, weights, start, end in zip(queries, head_weights.tolist(), starts.tolist(), ends.tolist(), strict=True):
        row = [-math.inf] * len(columns)
        for column in range(start, end):
            row[column] = score(query, weights, columns[column], factors[column])
        rows.append(row)
    return {"logits": matrix(rows, len(rows), len(columns))}
