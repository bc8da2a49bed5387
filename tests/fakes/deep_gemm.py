"""deep_gemm as it looks from outside: signatures, checks, undefined cells and results, computed in torch on the CPU.

It fails where the library asserts, with the library's kind of error, and also where the library would silently read
beyond its arguments or never end. Cells that the library leaves undefined are NaN.
"""

from __future__ import annotations

import types
import zlib
from dataclasses import dataclass
from typing import Any

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.vendors import Library, Missing

SPLIT, PAGE = 256, 64
HEADS = {"sm90": (32, 64), "sm100": tuple(range(4, 129, 4)), "sm120": (16, 32, 64)}


@dataclass(frozen=True)
class Recorded:
    """One call of a function: its name, and its arguments by place and by name."""

    name: str
    args: tuple[Any, ...]
    named: dict[str, Any]


def holds(condition: object, text: str) -> None:
    """What the library checks itself."""
    if not condition:
        raise RuntimeError(f"Assertion error (csrc/apis/attention.hpp): {text}")


def safe(condition: object, text: str) -> None:
    """What the library does not check."""
    if not condition:
        raise AssertionError(f"the library would not have noticed: {text}")


class DeepGemm:
    """The functions of one build on one architecture, and the calls that were made of them."""

    def __init__(self, arch: str, native: tuple[int, ...], num_sms: int) -> None:
        self.arch = arch
        self.native = native
        self.num_sms = num_sms
        self.calls: list[Recorded] = []

    def module(self, generation: int) -> types.ModuleType:
        """The module of one generation of the interface."""
        module = types.ModuleType("deep_gemm")
        module.get_num_sms = lambda: self.num_sms
        module.get_paged_mqa_logits_metadata = self.get_paged_mqa_logits_metadata
        if generation == 1:
            module.fp8_mqa_logits = self.fp8_mqa_logits
            module.fp8_paged_mqa_logits = self.fp8_paged_mqa_logits
        else:
            module.fp8_fp4_mqa_logits = self.fp8_fp4_mqa_logits
            module.fp8_fp4_paged_mqa_logits = self.fp8_fp4_paged_mqa_logits
            module.get_mqa_logits_metadata = self.get_mqa_logits_metadata
        return module

    def named(self, name: str) -> list[Recorded]:
        """The calls of one function."""
        return [call for call in self.calls if call.name == name]

    def fp8_mqa_logits(
        self, q, kv, weights, cu_seq_len_k_start, cu_seq_len_k_end, clean_logits=True, max_seqlen_k=0
    ) -> torch.Tensor:
        """Generation 1, ragged."""
        bounds = cu_seq_len_k_start, cu_seq_len_k_end
        self._note("fp8_mqa_logits", (q, kv, weights, *bounds), clean_logits=clean_logits, max_seqlen_k=max_seqlen_k)
        holds(max_seqlen_k == 0 or not clean_logits, "not clean_logits")
        return self._ragged(q, kv, weights, *bounds, clean_logits, max_seqlen_k)

    def fp8_fp4_mqa_logits(
        self, q, kv, weights, cu_seq_len_k_start, cu_seq_len_k_end, max_seqlen_k, schedule_meta=None
    ) -> torch.Tensor:
        """Generation 2, ragged: always compressed."""
        bounds = cu_seq_len_k_start, cu_seq_len_k_end
        self._note("fp8_fp4_mqa_logits", (q, kv, weights, *bounds, max_seqlen_k), schedule_meta=schedule_meta)
        values = self._values(q)
        holds(schedule_meta is None, "not schedule_meta.has_value()")
        holds(max_seqlen_k > 0, "max_seqlen_k > 0")
        return self._ragged(values, kv, weights, *bounds, False, max_seqlen_k)

    def get_mqa_logits_metadata(self, ks, ke, num_kv_tokens, num_heads) -> torch.Tensor:
        """Generation 2: for sm100 alone."""
        raise RuntimeError("Assertion error (csrc/apis/attention.hpp): get_arch_major() == 10")

    def get_paged_mqa_logits_metadata(self, context_lens, block_kv, num_sms, indices=None) -> torch.Tensor:
        """Both generations: the shares, which here are a seal of the lengths that they were made of."""
        self._note("get_paged_mqa_logits_metadata", (context_lens, block_kv, num_sms), indices=indices)
        holds(context_lens.ndim == 2 and context_lens.dtype is torch.int32, "context_lens.dim() == 2")
        holds(context_lens.is_contiguous(), "context_lens.is_contiguous()")
        holds(block_kv == PAGE, "block_kv == 64")
        holds(num_sms > 0 and indices is None, "num_sms > 0")
        safe(context_lens.numel() > 0, "no request, and a kernel of no thread")
        return self._shares(context_lens, num_sms)

    def fp8_paged_mqa_logits(
        self,
        q,
        kv_cache,
        weights,
        context_lens,
        block_table,
        schedule_meta,
        max_context_len,
        clean_logits=False,
        indices=None,
    ) -> torch.Tensor:
        """Generation 1, paged."""
        args = q, kv_cache, weights, context_lens, block_table, schedule_meta, max_context_len
        self._note("fp8_paged_mqa_logits", args, clean_logits=clean_logits, indices=indices)
        holds(not clean_logits, "not is_context_lens_2d")
        holds(indices is None, "arch_major == 10 and next_n == 1")
        return self._paged(*args)

    def fp8_fp4_paged_mqa_logits(
        self,
        q,
        fused_kv_cache,
        weights,
        context_lens,
        block_table,
        schedule_meta,
        max_context_len,
        indices=None,
    ) -> torch.Tensor:
        """Generation 2, paged."""
        args = fused_kv_cache, weights, context_lens, block_table, schedule_meta, max_context_len
        self._note("fp8_fp4_paged_mqa_logits", (q, *args), indices=indices)
        holds(indices is None, "arch_major == 12 or is_varlen == (arch_major == 10)")
        return self._paged(self._values(q), *args)

    def _note(self, name: str, args: tuple[Any, ...], **named: Any) -> None:
        self.calls.append(Recorded(name, args, named))

    def _values(self, q: Any) -> torch.Tensor:
        values, scales = q
        holds((scales is not None) == (self.arch == "sm100"), "is_mx_sf == (arch_major == 10)")
        return values

    def _check_queries(self, q: torch.Tensor, weights: torch.Tensor) -> None:
        heads, channels = q.shape[-2:]
        holds(heads in HEADS[self.arch], "num_heads == 32 or num_heads == 64")
        holds(channels in (32, 64, 128), "head_dim == 32 or head_dim == 64 or head_dim == 128")
        holds(q.is_contiguous() and q.dtype is torch.float8_e4m3fn, "q_fp.is_contiguous()")
        holds(weights.shape == (q.shape[:-2].numel(), heads), "seq_len == _seq_len and num_heads == _num_heads")
        holds(weights.dtype is torch.float32, "weights.scalar_type() == torch::kFloat")
        safe(weights.is_contiguous(), "head weights are read with the rows side by side")
        safe(weights.stride(0) * 4 % 16 == 0, "a copy engine takes rows multiples of 16 bytes apart, one row too")
        safe(q.data_ptr() % 16 == 0 and weights.data_ptr() % 16 == 0, "the copy engine takes multiples of 16")

    def _ragged(self, q, kv, weights, starts, ends, clean, max_seqlen_k) -> torch.Tensor:
        keys, scales = kv
        holds(q.ndim == 3 and keys.ndim == 2 and keys.shape[1] == q.shape[2], "head_dim == _head_dim")
        self._check_queries(q, weights)
        holds(keys.is_contiguous() and keys.dtype is torch.float8_e4m3fn, "kv_fp.is_contiguous()")
        holds(scales.shape == keys.shape[:1] and scales.dtype is torch.float32, "seq_len_kv == _seq_len_kv")
        for bound in (starts, ends):
            holds(bound.shape == q.shape[:1] and bound.dtype is torch.int32, "cu_seq_len_k.size(0) == seq_len")
            holds(bound.is_contiguous(), "cu_seq_len_k.is_contiguous()")
        safe(keys.data_ptr() % 16 == 0 and scales.data_ptr() % 16 == 0, "the copy engine takes multiples of 16")
        safe(q.shape[0] > 0 and keys.shape[0] > 0, "an empty matrix has no copy descriptor")
        safe((starts >= 0).all() and (starts <= ends).all() and (ends <= keys.shape[0]).all(), "a window out of range")
        scores = _scores(q, keys, scales, weights)
        width = max_seqlen_k or keys.shape[0]
        logits = _undefined(q.shape[0], width, spare=0 if max_seqlen_k else SPLIT)
        for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            safe(end - start <= width, "a window longer than max_seqlen_k")
            first = 0 if max_seqlen_k else start
            if clean:
                logits[row] = -torch.inf
            logits[row, first : first + end - start] = scores[row, start:end]
        return logits

    def _paged(self, q, cache, weights, lens, table, work, width) -> torch.Tensor:
        b, n = q.shape[:2]
        holds(q.ndim == 4 and n >= 1, "next_n >= 1")
        self._check_queries(q, weights)
        holds(weights.is_contiguous(), "weights.is_contiguous()")
        holds(cache.ndim == 4 and cache.shape[1:] == (PAGE, 1, q.shape[3] + 4), "block_kv == 64")
        holds(cache.dtype is torch.uint8, "fused_kv_cache.scalar_type() == torch::kByte")
        holds(cache.stride(1) == q.shape[3] + 4 and cache.stride(3) == 1, "fused_kv_cache.stride(1)")
        holds(table.ndim == 2 and table.shape[0] == b, "_batch_size == batch_size")
        holds(table.stride(1) == 1 and table.dtype is torch.int32, "block_table.stride(1) == 1")
        slots = self.num_sms // 2 if self.arch == "sm90" and n == 4 else self.num_sms
        holds(work.shape == (slots + 1, 2) and work.is_contiguous(), "_schedule_meta_size == num_sms + 1")
        holds(lens.shape == (b, n) and lens.dtype is torch.int32, "batch_size == __batch_size and next_n == _next_n")
        holds(lens.is_contiguous(), "context_lens.is_contiguous()")
        holds(self.arch != "sm90" or n in self.native, "next_n == 1 or next_n == 2")
        safe(cache.data_ptr() % 16 == 0, "the copy engine takes multiples of 16")
        safe(torch.equal(work, self._shares(lens, slots)), "shares of other lengths: it may never end")
        safe((lens >= 1).all() and (lens <= lens[:, -1:]).all(), "the last length is the one that is gone by")
        safe((lens <= width).all() and (lens <= table.shape[1] * PAGE).all(), "lengths beyond the row or the table")
        safe((table >= 0).all() and (table < cache.shape[0]).all(), "a page that the cache does not have")
        logits = _undefined(b * n, width, spare=0)
        flat = cache.reshape(cache.shape[0], -1)
        for request in range(b):
            pages = flat[table[request].long()]
            keys = pages[:, : PAGE * q.shape[3]].reshape(-1, q.shape[3]).view(torch.float8_e4m3fn)
            scales = pages[:, PAGE * q.shape[3] :].contiguous().view(torch.float32).flatten()
            scores = _scores(q[request], keys, scales, weights[request * n : (request + 1) * n])
            for row in range(n):
                length = int(lens[request, row])
                logits[request * n + row, :length] = scores[row, :length]
        return logits

    def _shares(self, lens: torch.Tensor, slots: int) -> torch.Tensor:
        work = torch.zeros(slots + 1, 2, dtype=torch.int32)
        work[0] = torch.tensor(lens.shape)
        work[1, 0] = zlib.crc32(lens.numpy().tobytes()) & 0x7FFFFFFF
        return work


def _scores(q, keys, scales, weights) -> torch.Tensor:
    products = torch.einsum("thd,sd->ths", q.float(), keys.float()).relu()
    return (products * weights[:, :, None]).sum(1) * scales


def _undefined(rows: int, width: int, spare: int) -> torch.Tensor:
    """Rows of 1024 bytes or a multiple, in blocks of rows, as they come from the library."""
    stride = -(-(width + spare) // SPLIT) * SPLIT
    return torch.full((-(-rows // 8) * 8, stride), torch.nan)[:rows, :width]


def machine(
    arch: str,
    generation: int = 1,
    *,
    native: tuple[int, ...] = (1, 2),
    num_sms: int = 132,
    version: str = "0.1.4",
    triton_version: str | None = "3.6.0",
) -> tuple[Capabilities, DeepGemm]:
    """A machine with this library on it, and the library."""
    library = DeepGemm({"sm103": "sm100", "sm121": "sm120"}.get(arch, arch), native, num_sms)
    found = Library("deep_gemm", "sgl-deep-gemm", version, generation, library.module(generation))
    missing = {name: Missing(name, f"{name} is not installed") for name in ("flash_mla", "aiter")}
    vendors = {"deep_gemm": found, **missing}
    hw = Capabilities("cuda", arch, torch.__version__, triton_version, multiprocessors=num_sms, vendors=vendors)
    return hw, library
