"""DeepSeek Sparse Attention: every op as a torch reference and fast kernels, chosen by settings on every call.

Importing this package imports nothing else: names are looked up when they are used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "attention_merge": "ops.attention_merge",
    "dense_mla_prefill": "ops.dense_mla_prefill",
    "index_gather": "ops.index_gather",
    "index_quant": "ops.index_quant",
    "index_select": "ops.index_select",
    "index_store": "ops.index_store",
    "kv_gather": "ops.kv_gather",
    "kv_store": "ops.kv_store",
    "mqa_logits": "ops.mqa_logits",
    "paged_mqa_logits": "ops.paged_mqa_logits",
    "sparse_mla_decode": "ops.sparse_mla_decode",
    "sparse_mla_prefill": "ops.sparse_mla_prefill",
    "step_metadata": "ops.step_metadata",
    "topk": "ops.topk",
    "topk_candidates": "ops.topk_candidates",
    "topk_merge": "ops.topk_merge",
    "GatheredKeys": "ops.index_select",
    "PagedKeys": "ops.index_select",
    "Selection": "ops.index_select",
    "IndexKCache": "caches.index_k_cache",
    "MlaCache": "caches.mla_cache",
    "KeyPart": "layouts.key_split",
    "KeySplit": "layouts.key_split",
    "MemoryReading": "core.hardware",
    "SlotMap": "layouts.views",
    "attach_index_k_cache": "caches.agreement",
    "forget_workspaces": "core.logits_workspace",
    "StepMetadata": "ops.step_metadata.metadata",
    "record_calls": "dispatch.trace",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
