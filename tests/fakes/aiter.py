"""aiter as it looks from outside: modules, signatures, checks, undefined cells and results, computed in torch.

It fails where the library asserts, and also where the library would silently read or write beyond its arguments. What
it leaves undefined is NaN. fp8 is what it is on the architecture: e4m3fnuz on gfx942, e4m3fn elsewhere.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from typing import Any

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.vendors import Library, Missing
from fakes.aiter_arithmetic import ARCHITECTURES, FP8_MAX, TILE, numbers, places, scores


def holds(condition: object, text: str) -> None:
    """What the library checks itself."""
    assert condition, text


def safe(condition: object, text: str) -> None:
    """What the library does not check."""
    if not condition:
        raise AssertionError(f"the library would not have noticed: {text}")


@dataclass(frozen=True)
class Build:
    """What differs between releases.

    Attributes:
        version: of the package.
        cache_preshuffle: the cache kernels take preshuffle.
        clean_logits: the ragged kernel asks whether to clean.
        stable: top-k takes stable, and k.
        from_row: top-k numbers what it picks from the row, not from the row's window.
        attention_folder: the Triton kernels lie in ops.triton.attention.
    """

    version: str | None = "0.1.20"
    cache_preshuffle: bool = True
    clean_logits: bool = True
    stable: bool = True
    from_row: bool = True
    attention_folder: bool = True


BUILDS = {
    "0.1.20": Build(),
    "0.1.13": Build("0.1.13", clean_logits=False, stable=False),
    "0.1.9": Build("0.1.9", cache_preshuffle=False, clean_logits=False, stable=False, attention_folder=False),
    "unknown": Build(None, from_row=False),
}


@dataclass(frozen=True)
class Recorded:
    """One call of a function: its name, and its arguments by name."""

    name: str
    named: dict[str, Any]


@dataclass(eq=False)
class Aiter:
    """The functions of one build on one machine, and the calls that were made of them."""

    arch: str
    triton: str
    build: Build
    ahead_of_time: bool = False
    calls: list[Recorded] = field(default_factory=list)

    @property
    def fp8(self) -> torch.dtype:
        return torch.float8_e4m3fnuz if self.arch == "gfx942" else torch.float8_e4m3fn

    def named(self, name: str) -> list[dict[str, Any]]:
        return [call.named for call in self.calls if call.name == name]

    def note(self, name: str, **named: Any) -> None:
        kept = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in named.items()}
        self.calls.append(Recorded(name, kept))

    def module(self) -> types.ModuleType:
        module = types.ModuleType("aiter")
        has = self.build.cache_preshuffle
        module.indexer_k_quant_and_cache = self.indexer_k_quant_and_cache if has else self._old_store
        module.cp_gather_indexer_k_quant_cache = self.cp_gather_indexer_k_quant_cache if has else self._old_gather
        module.top_k_per_row_prefill = self.top_k_per_row_prefill if self.build.stable else self._unstable_topk
        module.ops = types.ModuleType("aiter.ops")
        module.ops.triton = types.ModuleType("aiter.ops.triton")
        home = module.ops.triton
        if self.build.attention_folder:
            home = module.ops.triton.attention = types.ModuleType("aiter.ops.triton.attention")
        home.fp8_mqa_logits = types.ModuleType("fp8_mqa_logits")
        home.fp8_mqa_logits.fp8_mqa_logits = self.fp8_mqa_logits if self.build.clean_logits else self._always_clean
        paged = types.ModuleType("pa_mqa_logits")
        paged.deepgemm_fp8_paged_mqa_logits = self.deepgemm_fp8_paged_mqa_logits
        _give(home, "pa_mqa_logits", paged, self._import_error())
        return module

    def _import_error(self) -> Exception | None:
        """What the import of the paged kernel raises in releases that demand Triton 3.6."""
        triton = numbers(self.triton)
        demands = self.build.version is not None and numbers(self.build.version) >= (0, 1, 15)
        if demands and (3, 5, 0) <= triton < (3, 6, 0):
            return RuntimeError(f"aiter gluon kernels require triton>=3.6.0, found {self.triton}")
        return None

    def indexer_k_quant_and_cache(self, k, kv_cache, slot_mapping, quant_block_size, scale_fmt, preshuffle=False):
        self.note("store", k=k, slot_mapping=slot_mapping, scale_fmt=scale_fmt, preshuffle=preshuffle)
        tokens, head_dim = k.shape
        pages, block, stride = kv_cache.shape
        holds(k.dtype in (torch.float32, torch.bfloat16, torch.float16), f"k is {k.dtype}")
        holds(head_dim % quant_block_size == 0, "head_dim must be divisible by quant_block_size")
        holds(not preshuffle or block % TILE == 0, "preshuffle requires cache_block_size to be a multiple of 16")
        holds(tokens > 0, "invalid configuration: no block to launch")
        safe(k.is_contiguous() and k.data_ptr() % 16 == 0, "k is read 16 elements at a time")
        safe(kv_cache.is_contiguous() and kv_cache.dtype is torch.uint8, "the cache is written through its address")
        safe(slot_mapping.dtype is torch.int64 and slot_mapping.is_contiguous(), "slots are int64")
        safe(slot_mapping.shape == (tokens,), "one slot a key")
        safe(bool((slot_mapping < pages * block).all()), "a slot beyond the cache")
        safe(stride == head_dim + head_dim // quant_block_size * 4, "a token is its key and its scale")
        amax = k.float().unflatten(1, (-1, quant_block_size)).abs().amax(2)
        scale = amax.clamp(min=1e-4) / torch.tensor(FP8_MAX[self.fp8])
        if scale_fmt == "ue8m0":
            scale = torch.exp2(torch.ceil(torch.log2(scale)))
        inverse = (1.0 / scale).repeat_interleave(quant_block_size, 1)
        most = FP8_MAX[self.fp8]
        codes = (k.float() * inverse).clamp(-most, most).to(self.fp8).view(torch.uint8)
        flat = kv_cache.view(pages, -1)
        for row, slot in enumerate(slot_mapping.tolist()):
            if slot >= 0:
                page, token = divmod(slot, block)
                flat[page, places(token, head_dim, preshuffle)] = codes[row]
                at = block * head_dim + token * 4
                flat[page, at : at + 4] = scale[row].view(torch.uint8)

    def _old_store(self, k, kv_cache, slot_mapping, quant_block_size, scale_fmt):
        self.indexer_k_quant_and_cache(k, kv_cache, slot_mapping, quant_block_size, scale_fmt)

    def cp_gather_indexer_k_quant_cache(self, kv_cache, dst_k, dst_scale, block_table, cu_seq_lens, preshuffle=False):
        self.note("gather", block_table=block_table, cu_seq_lens=cu_seq_lens, preshuffle=preshuffle)
        tokens, head_dim = dst_k.shape
        pages, block, _ = kv_cache.shape
        holds(dst_scale.shape[1] * dst_scale.element_size() == 4, "one f32 scale a token")
        holds(not preshuffle or block % TILE == 0, "preshuffle requires cache_block_size to be a multiple of 16")
        holds(tokens > 0, "invalid configuration: no block to launch")
        safe(kv_cache.is_contiguous() and dst_k.is_contiguous() and dst_scale.is_contiguous(), "addresses")
        safe(block_table.is_contiguous() and block_table.dtype is torch.int32, "the table is read as one run of int32")
        safe(cu_seq_lens.dtype is torch.int32 and cu_seq_lens.shape == (block_table.shape[0] + 1,), "b + 1 ends")
        behind = block_table.untyped_storage().nbytes() // 4 - block_table.storage_offset()
        run = block_table.as_strided((behind,), (1,)).tolist()
        ends, flat = cu_seq_lens.tolist(), kv_cache.view(pages, -1)
        for token in range(tokens):
            owners = [it for it in range(len(ends) - 1) if ends[it] <= token < ends[it + 1]]
            safe(len(owners) == 1, f"token {token} has no request: the page table is read anywhere")
            position = token - ends[owners[0]]
            at = owners[0] * block_table.shape[1] + position // block
            safe(at < len(run), "the page table is read beyond its memory")
            safe(0 <= run[at] < pages, f"page {run[at]} is read")
            page, offset = flat[run[at]], position % block
            dst_k[token] = page[places(offset, head_dim, preshuffle)].view(dst_k.dtype)
            scale = page[block * head_dim + offset * 4 :][:4]
            dst_scale[token] = scale.view(dst_scale.dtype)

    def _old_gather(self, kv_cache, dst_k, dst_scale, block_table, cu_seq_lens):
        self.cp_gather_indexer_k_quant_cache(kv_cache, dst_k, dst_scale, block_table, cu_seq_lens)

    def fp8_mqa_logits(self, Q, KV, kv_scales, weights, cu_starts, cu_ends, clean_logits=True):
        self.note("mqa_logits", Q=Q, KV=KV, weights=weights, cu_starts=cu_starts, cu_ends=cu_ends, clean=clean_logits)
        rows, heads, channels = Q.shape
        keys = KV.shape[0]
        holds(heads & (heads - 1) == 0, "num q. heads should be power of 2.")
        holds(channels & (channels - 1) == 0, "head size should be power of 2.")
        safe(Q.dtype is self.fp8 and KV.dtype is self.fp8, f"not every release recasts {Q.dtype} on {self.arch}")
        safe(heads in (32, 64), f"{heads} heads were never tried")
        safe(kv_scales.dtype is weights.dtype is torch.float32 and kv_scales.is_contiguous(), "scales and weights")
        safe(cu_starts.dtype is cu_ends.dtype is torch.int32 and cu_starts.is_contiguous(), "windows are int32")
        safe(rows > 0 and keys > 0, "nothing to launch")
        aligned = -(-keys // 256) * 256
        safe(rows * aligned * 4 < 2**31, "2 GiB of logits abort the compiler")
        safe(bool(((cu_starts >= 0) & (cu_starts <= cu_ends) & (cu_ends <= keys)).all()), "windows within the keys")
        fill = -torch.inf if clean_logits else torch.nan
        logits = torch.full((rows, aligned), fill)[:, :keys]
        found = scores(Q, KV, kv_scales, weights)
        columns = torch.arange(keys)
        seen = (columns >= cu_starts[:, None]) & (columns < cu_ends[:, None])
        logits[seen] = found[seen]
        return logits

    def _always_clean(self, Q, KV, kv_scales, weights, cu_starts, cu_ends):
        return self.fp8_mqa_logits(Q, KV, kv_scales, weights, cu_starts, cu_ends)

    def deepgemm_fp8_paged_mqa_logits(
        self,
        q_fp8,
        kv_cache,
        weights,
        out_logits,
        context_lens,
        kv_indices,
        max_model_len,
        Preshuffle=False,
        KVBlockSize=1,
        ChunkK=256,
        TotalCuCount=None,
        WavePerEU=2,
        VarCtxSchedule=None,
    ):
        self.note("paged", q=q_fp8, weights=weights, context_lens=context_lens, kv_indices=kv_indices, page=KVBlockSize)
        b, n, heads, d = q_fp8.shape
        pages, block, one, packed = kv_cache.shape
        holds(ChunkK % KVBlockSize == 0 or KVBlockSize % ChunkK == 0, "ChunkK % KVBlockSize")
        holds(block == KVBlockSize and one == 1 and packed == d + 4, "block_Size == KVBlockSize")
        holds(not Preshuffle or KVBlockSize % TILE == 0, "Preshuffle mode only supports KVBlockSize aligned to 16")
        triton = numbers(self.triton)
        is_gluon = (triton >= (3, 5, 0) or self.ahead_of_time) and self.arch in ARCHITECTURES
        holds(is_gluon or not Preshuffle, "Preshuffle mode is only supported on gluon kernel.")
        holds(is_gluon or KVBlockSize == 1, "KVBlockSize == 1")
        holds(not self.ahead_of_time or not (3, 4) <= triton < (3, 5, 0), "triton_version < 3.4.0")
        holds(Preshuffle or KVBlockSize == 1, "plain pages of more tokens are read as pages of 1")
        safe(q_fp8.dtype is self.fp8, f"{q_fp8.dtype} is read as {self.fp8}")
        safe(heads % 32 == 0, "queries are shared out by 32 heads")
        safe(kv_cache.dtype is torch.uint8 and kv_cache.is_contiguous(), "the cache is read through its address")
        safe(kv_cache.nbytes < 2**31, "the cache is addressed with 32 bits")
        safe(weights.shape == (b * n, heads) and weights.dtype is torch.float32 and weights.stride(1) == 1, "weights")
        safe(out_logits.shape == (b * n, max_model_len) and out_logits.dtype is torch.float32, "logits")
        safe(b * n * out_logits.stride(0) * 4 < 2**31, "stores beyond 2 GiB are lost")
        safe(bool((out_logits == -torch.inf).all()), "the caller fills the logits with -inf")
        safe(context_lens.shape == (b,) and context_lens.dtype is torch.int32 and context_lens.is_contiguous(), "lens")
        safe(kv_indices.shape[0] == b and kv_indices.dtype is torch.int32 and kv_indices.is_contiguous(), "table")
        flat = kv_cache.view(pages, -1)
        for request, length in enumerate(context_lens.tolist()):
            safe(0 <= length <= min(max_model_len, kv_indices.shape[1] * block), f"length {length}")
            used = kv_indices[request, : -(-length // block)].tolist()
            safe(all(0 <= page < pages for page in used), f"pages {used} are read")
            slots = [(used[at // block], at % block) for at in range(length)]
            if not slots:
                continue
            codes = torch.stack([flat[page, places(token, d, Preshuffle)] for page, token in slots])
            scales = torch.stack([flat[page, block * d + token * 4 :][:4] for page, token in slots])
            keys, scales = codes.view(self.fp8), scales.view(torch.float32)[:, 0]
            for row in range(n):
                at = request * n + row
                found = scores(q_fp8[request, row][None], keys, scales, weights[at][None])[0]
                visible = max(length - n + row + 1, 0)
                out_logits[at, :visible] = found[:visible]

    def top_k_per_row_prefill(
        self, logits, rowStarts, rowEnds, indices, values, numRows, stride0, stride1, k=2048, stable=False
    ):
        self.note("topk", numRows=numRows, k=k, stable=stable, logits=logits)
        safe(logits.dtype is torch.float32 and (stride0, stride1) == logits.stride() and stride1 == 1, "strides")
        safe(rowStarts.dtype is rowEnds.dtype is indices.dtype is torch.int32, "int32")
        safe(indices.shape == (numRows, k) and indices.is_contiguous() and values is None, "indices")
        for row, (start, end) in enumerate(zip(rowStarts.tolist(), rowEnds.tolist(), strict=True)):
            safe(0 <= start <= end <= logits.shape[1], f"cells {start} to {end} of {logits.shape[1]}")
            keys = logits[row, start:end].view(torch.int32).long()
            keys = torch.where(keys < 0, keys & 0xFFFFFFFF, keys ^ 0x7FFFFFFF)  # NaN first, 0 before -0
            chosen = torch.sort(keys, stable=True).indices[:k]
            chosen = chosen.sort().values if stable else chosen.flip(0)
            indices[row] = -1
            indices[row, : chosen.numel()] = chosen.int() + (start if self.build.from_row else 0)

    def _unstable_topk(self, logits, rowStarts, rowEnds, indices, values, numRows, stride0, stride1):
        self.top_k_per_row_prefill(logits, rowStarts, rowEnds, indices, values, numRows, stride0, stride1)


def machine(
    arch: str = "gfx950", triton: str | None = "3.6.0", build: Build | str = "0.1.20", *, ahead_of_time: bool = False
) -> tuple[Capabilities, Aiter]:
    """A device of ROCm with an aiter, and what stands behind that."""
    of = BUILDS[build] if isinstance(build, str) else build
    library = Aiter(arch, triton or "0", of, ahead_of_time)
    return rocm(arch, triton, Library("aiter", "amd-aiter", of.version, 1, library.module())), library


def rocm(arch: str, triton: str | None, aiter: Library | Missing) -> Capabilities:
    """A device of ROCm with this aiter, or without one."""
    vendors = {name: Missing(name, f"{name} is not installed") for name in ("deep_gemm", "flash_mla")}
    return Capabilities("cuda", arch, "2.11.0+rocm7.0", triton, is_hip=True, vendors={**vendors, "aiter": aiter})


def _give(home: types.ModuleType, name: str, module: types.ModuleType, error: Exception | None) -> None:
    """A part of a module, or a part whose import fails."""
    if error is None:
        setattr(home, name, module)
        return

    def missing(asked: str) -> Any:
        raise error if asked == name else AttributeError(asked)

    home.__getattr__ = missing
