"""Which caches a kernel can address: it computes addresses, and does not follow strides."""

from __future__ import annotations

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.mla_cache import MlaCache

SCALE_BYTES = 4


def refuses_addresses(cache: IndexKCache | MlaCache) -> str | None:
    """Why a kernel that reads or writes a cache in place cannot; None if it can. A copy would lose what is written."""
    data = cache.data
    if not data.is_contiguous():
        return f"the cache's tensor has strides {list(data.stride())}, this kernel takes contiguous caches, in place"
    past = data.data_ptr() % SCALE_BYTES
    if cache.layout.format == "fp8" and past:
        return f"the cache's tensor begins {past} bytes past a multiple of {SCALE_BYTES}, where no f32 can be"
    return None
