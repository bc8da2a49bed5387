"""A stand-in for flash_mla: its signatures and rules, and attention in torch with the roundings of its sm90 kernels.

What breaks a rule raises; what the real one leaves unspecified is poison. Every call is recorded.
"""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass, field
from typing import Any

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.vendors import Library, Missing

TOKEN_BYTES, LATENTS, WIDTH, GROUP = 656, 512, 576, 128


class FlashMLASchedMeta:
    """What a first decode call fills, with the shapes that it is for."""

    config: tuple[Any, ...] | None = None
    calls = 0


@dataclass
class FakeFlashMla:
    """One build of flash_mla on one architecture.

    Attributes:
        arch: what it runs on.
        build: `sgl` (the legacy kernels apart, as in sgl-flash-mla 1.0.0), `upstream` (before they were dropped),
            `sinkless` (upstream, whose prefill knows no sink), `dropped` (upstream after that) or `old` (generation 1).
        has_legacy: of the sgl build.
        calls: the arguments of every call, by parameter name, with `function`.
        schedules: every schedule object that it gave out.
    """

    arch: str = "sm90"
    build: str = "sgl"
    has_legacy: bool = True
    calls: list[dict[str, Any]] = field(default_factory=list)
    schedules: list[FlashMLASchedMeta] = field(default_factory=list)

    def capabilities(self) -> Capabilities:
        """A device with this library, and with no other."""
        generation = 1 if self.build == "old" else 2
        found = Library("flash_mla", "sgl-flash-mla", "1.0.0", generation, self.module())
        others = {name: Missing(name, f"{name} is not installed") for name in ("deep_gemm", "aiter")}
        vendors = {"flash_mla": found, **others}
        return Capabilities("cuda", self.arch, torch.__version__, "3.6.0", multiprocessors=132, vendors=vendors)

    def module(self) -> types.ModuleType:
        """The module, with functions of the build's signatures."""
        module = types.ModuleType("flash_mla")
        module.get_mla_metadata = self._get_mla_metadata
        module.flash_mla_with_kvcache, module.flash_mla_sparse_fwd = {
            "sgl": (self._sgl_with_kvcache, self._sgl_sparse_fwd),
            "upstream": (self._with_kvcache, self._sparse_fwd),
            "sinkless": (self._with_kvcache, self._sinkless_sparse_fwd),
            "dropped": (self._invariant_with_kvcache, self._sparse_fwd),
            "old": (self._old_with_kvcache, self._sinkless_sparse_fwd),
        }[self.build]
        if self.build == "sgl":
            module.has_legacy = lambda: self.has_legacy
        return module

    def _get_mla_metadata(self, *args, **kwargs):
        self.schedules.append(FlashMLASchedMeta())
        return self.schedules[-1], None

    def _sgl_with_kvcache(
        self, q, k_cache, block_table, cache_seqlens, head_dim_v, tile_scheduler_metadata, num_splits=None,
        softmax_scale=None, causal=False, is_fp8_kvcache=None, indices=None, attn_sink=None, extra_k_cache=None,
        extra_indices_in_kvcache=None, topk_length=None, extra_topk_length=None, enable_batch_invariant=False,
        use_legacy=False, kv_format=None, descale_q=None, descale_k=None,
    ):  # fmt: skip
        require(use_legacy, "the current kernels are for sm100, 512 channels and tokens of 528 or 288 bytes")
        require(self.has_legacy, "the legacy kernels are not available")
        require(not enable_batch_invariant, "enable_batch_invariant only exists on the current kernels")
        return self._decode(dict(locals()))

    def _with_kvcache(
        self, q, k_cache, block_table, cache_seqlens, head_dim_v, tile_scheduler_metadata, num_splits=None,
        softmax_scale=None, causal=False, is_fp8_kvcache=False, indices=None, attn_sink=None, extra_k_cache=None,
        extra_indices_in_kvcache=None, topk_length=None, extra_topk_length=None,
    ):  # fmt: skip
        return self._decode(dict(locals()))

    def _invariant_with_kvcache(
        self, q, k_cache, block_table, cache_seqlens, head_dim_v, tile_scheduler_metadata, num_splits=None,
        softmax_scale=None, causal=False, is_fp8_kvcache=True, indices=None, attn_sink=None, extra_k_cache=None,
        extra_indices_in_kvcache=None, topk_length=None, extra_topk_length=None, enable_batch_invariant=False,
    ):  # fmt: skip
        require(False, "head_dim must be 512")

    def _old_with_kvcache(
        self, q, k_cache, block_table, cache_seqlens, head_dim_v, tile_scheduler_metadata, num_splits,
        softmax_scale=None, causal=False, is_fp8_kvcache=False, indices=None,
    ):  # fmt: skip
        require(False, "tile_scheduler_metadata and num_splits are made of lengths")

    def _sgl_sparse_fwd(
        self, q, kv, indices, sm_scale, d_v=512, attn_sink=None, topk_length=None, use_legacy=False,
        return_log2_lse=None,
    ):  # fmt: skip
        require(use_legacy, "the current kernels are for sm100 and 512 channels")
        require(self.has_legacy, "the legacy kernels are not available")
        out, top, lse = self._prefill(dict(locals()))
        if return_log2_lse is False:
            return out, None, None
        return (out, top * 1.4426950408889634, lse * 1.4426950408889634) if return_log2_lse else (out, top, lse)

    def _sparse_fwd(self, q, kv, indices, sm_scale, d_v=512, attn_sink=None, topk_length=None):
        return self._prefill(dict(locals()))

    def _sinkless_sparse_fwd(self, q, kv, indices, sm_scale, d_v=512):
        return self._prefill({**locals(), "attn_sink": None, "topk_length": None})

    def _decode(self, given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        self._record("flash_mla_with_kvcache", given)
        q, cache, indices, schedule = (given[name] for name in ("q", "k_cache", "indices", "tile_scheduler_metadata"))
        b, s_q, heads, width = check(q, torch.bfloat16, 4, "q")
        pages, page, kv_heads, token_bytes = check(cache, (torch.float8_e4m3fn, torch.uint8, torch.int8), 4, "k_cache")
        topk = check(indices, torch.int32, 3, "indices")[2]
        require(b > 0 and s_q > 0 and topk > 0, "empty")
        require(indices.shape[:2] == (b, s_q), "indices are not [b, s_q, topk]")
        require(heads in (64, 128), f"Unsupported h_q: {heads}")
        require((width, given["head_dim_v"]) == (WIDTH, LATENTS), "head sizes")
        require((kv_heads, token_bytes) == (1, TOKEN_BYTES), "k_cache is not [blocks, page, 1, 656]")
        require(page == 64, "pages of 64 tokens")
        require(cache.is_contiguous() and cache.data_ptr() % 16 == 0, "the pool must be one contiguous range")
        require(topk % 64 == 0 and indices.stride(0) * 4 % 32 == 0, f"topk {topk} mod 64 must be 0")
        require(given["num_splits"] is None and not given["causal"], "num_splits must be None, causal False")
        require(given["is_fp8_kvcache"] in (True, None), "is_fp8_kvcache must be True")
        require(given["topk_length"] is None, "V3.2 does not support dynamic topk length")
        require(given["extra_k_cache"] is None and given["extra_indices_in_kvcache"] is None, "extra")
        named = indices != -1
        require(bool((~named | ((indices >= 0) & (indices < pages * page))).all()), "an index is out of bounds")
        self._check_sink(given["attn_sink"], heads)
        require(isinstance(schedule, FlashMLASchedMeta), "tile_scheduler_metadata must be of type FlashMLASchedMeta")
        config = (b, s_q, heads, page, 1, topk)
        require(
            schedule.config in (None, config), f"inconsistent with sched_meta: {config}, made for {schedule.config}"
        )
        schedule.config, schedule.calls = config, schedule.calls + 1

        rows = dequantised(cache.view(torch.uint8).view(-1, TOKEN_BYTES))
        out, _, lse = attend(q.flatten(0, 1), rows, indices.flatten(0, 1), named.flatten(0, 1), given)
        return out.unflatten(0, (b, s_q)), lse.unflatten(0, (b, s_q)).transpose(1, 2)

    def _prefill(self, given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self._record("flash_mla_sparse_fwd", given)
        q, kv, indices = given["q"], given["kv"], given["indices"]
        rows, heads, width = check(q, torch.bfloat16, 3, "q")
        count, kv_heads, _ = check(kv, torch.bfloat16, 3, "kv")
        topk = check(indices, torch.int32, 3, "indices")[2]
        require(rows > 0 and count > 0, "empty")
        require(heads in ((64, 128) if self.arch == "sm90" else (128,)), f"Unsupported h_q: {heads}")
        require((width, kv.shape[2], kv_heads, given["d_v"]) == (WIDTH, WIDTH, 1, LATENTS), "head sizes")
        require(indices.shape == (rows, 1, topk) and topk > 0 and topk % 128 == 0, f"topk {topk} mod 128 must be 0")
        require(kv.stride(0) % 8 == 0 and kv.data_ptr() % 16 == 0, "rows of kv must be 16B aligned")
        require(isinstance(given["sm_scale"], float), "sm_scale is no float")
        require(given["topk_length"] is None or given["topk_length"].shape == (rows,), "topk_length")
        indices = indices[:, 0]
        require(bool((indices >= -1).all()), "an index is neither a row, nor -1, nor beyond the rows")
        self._check_sink(given["attn_sink"], heads)
        named = (indices >= 0) & (indices < count)
        return attend(q, kv[:, 0].float(), indices, named, {**given, "softmax_scale": given["sm_scale"]})

    def _record(self, function: str, given: dict[str, Any]) -> None:
        del given["self"]
        self.calls.append({"function": function, **given})

    def _check_sink(self, sink: torch.Tensor | None, heads: int) -> None:
        if sink is not None:
            require(check(sink, torch.float32, 1, "attn_sink") == (heads,), f"attn_sink is not [{heads}]")


def require(holds: bool, sentence: str) -> None:
    if not holds:
        raise RuntimeError(f"flash_mla: {sentence}")


def check(tensor: torch.Tensor, dtype: Any, dims: int, name: str) -> tuple[int, ...]:
    """The shape of a tensor whose dtype, dimensions and last stride are as they must be; q wholly contiguous."""
    require(tensor.dtype in (dtype if isinstance(dtype, tuple) else (dtype,)), f"{name} is {tensor.dtype}")
    require(tensor.ndim == dims, f"{name} has {tensor.ndim} dimensions")
    require(tensor.shape[-1] == 1 or tensor.stride(-1) == 1, f"the last dimension of {name} must be contiguous")
    if name == "q":
        require(tensor.is_contiguous() and tensor.data_ptr() % 16 == 0, "q must be contiguous and 16B aligned")
    return tuple(tensor.shape)


def dequantised(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens of 656 bytes, f32 [slots, 576], as the sm90 kernel makes them: scales rounded to bf16, and so products."""
    codes = tokens[:, :LATENTS].view(torch.float8_e4m3fn).bfloat16()
    scales = tokens[:, LATENTS : LATENTS + 16].contiguous().view(torch.float32).bfloat16()
    ropes = tokens[:, LATENTS + 16 :].contiguous().view(torch.bfloat16)
    return torch.cat([codes * scales.repeat_interleave(GROUP, 1), ropes], 1).float()


def attend(q, rows, indices, named, given) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, largest score and log-sum-exp; NaN and +inf for rows that name nothing."""
    scale = q.shape[-1] ** -0.5 if given["softmax_scale"] is None else given["softmax_scale"]
    picked = rows[indices.where(named, 0).long()].where(named[..., None], 0.0)
    scores = torch.einsum("thd,tkd->thk", q.float(), picked) * scale
    scores = scores.masked_fill(~named[:, None], -torch.inf)
    lse, top = scores.logsumexp(-1), scores.amax(-1)
    sink = torch.full((q.shape[1],), -torch.inf) if given["attn_sink"] is None else given["attn_sink"]
    weights = torch.exp(scores - top[..., None])
    total = weights.sum(-1) + torch.exp(sink - top)
    out = torch.einsum("thk,tkd->thd", weights.bfloat16().float(), picked[..., :LATENTS]) / total[..., None]
    nothing = ~named.any(-1)
    out[nothing], lse[nothing] = torch.nan, torch.inf
    return out.bfloat16(), top, lse


def parameters(function: Any) -> list[str]:
    """The names of a function's parameters, in their order."""
    return list(inspect.signature(function).parameters)
