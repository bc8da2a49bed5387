from __future__ import annotations

import torch


def oracle(mode, seq_lens, n=1, page_table=None, out=None):
    cached, context, requests, pages = [], [], [], []
    for request, length in enumerate(seq_lens.tolist()):
        in_cache = length + n if mode == "target_verify" else length
        cached.append(in_cache)
        context.append([max(0, in_cache - n + 1 + draft) for draft in range(n)])
        for _ in range(n):
            requests.append(request)
            if page_table is not None:
                pages.append(page_table[request].tolist())
    result = {
        "cache_lens": numbers(cached, len(cached)),
        "context_lens": numbers(context, len(context), n),
        "row_lens": numbers(context, len(context) * n),
        "request_of_row": numbers(requests, len(requests)),
    }
    if page_table is not None:
        result["page_table"] = numbers(pages, len(pages), page_table.shape[1])
    return result


def numbers(rows, *shape: int) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32).reshape(shape)
