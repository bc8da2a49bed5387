from __future__ import annotations

import torch


def oracle(mode, seq_lens, n=1, page_table=None, index_topk=None, out=None):
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
    if index_topk is not None:
        selected = [min(seen, index_topk) for rows in context for seen in rows]
        result["dsa_cache_lens"] = numbers(selected, len(selected))
        result["cu_cache_lens"] = sums(cached)
        result["cu_dsa_cache_lens"] = sums(selected)
    return result


def sums(lens) -> torch.Tensor:
    before, so_far = [], 0
    for length in [*lens, 0]:
        before.append(min(so_far, 2**31 - 1))
        so_far += length
    return numbers(before, len(before))


def numbers(rows, *shape: int) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32).reshape(shape)
