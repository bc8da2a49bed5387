"""Compiles kernels for sm90, which takes no GPU: `python tests/hopper_builds.py` says what each needs."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

HOPPER = GPUTarget("cuda", 90, 32)
POINTERS = {
    "*bf16": ("q", "kv"),
    "*i32": (
        "indices", "slots", "cache", "lengths_ptr", "starts_ptr", "picked_ptr", "table_ptr", "request_ptr",
        "request_of_row_ptr", "starts", "ends", "context_lens", "page_table",
    ),
    "*fp32": ("sink", "out", "lse", "logits_ptr", "scales", "head_weights"),
}  # fmt: skip
TYPES = {name: kind for kind, names in POINTERS.items() for name in names} | {"scale": "fp32", "slot_count": "i64"}


def build(
    kernel: Any,
    constants: dict[str, Any],
    types: dict[str, str] | None = None,
    source_of: type[ASTSource] = GluonASTSource,
    **options: Any,
) -> Any:
    """The compiled kernel; types of its arguments go by their names, and addresses are multiples of 16."""
    known = {**TYPES, **(types or {})}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else known.get(name, "i32") for name in names}
    aligned = [name for name in names if signature[name].startswith("*")]
    source = source_of(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return triton.compile(source, target=HOPPER, options=options)


def registers_of(kernel: Any) -> int:
    """How many registers a thread of a compiled kernel has: the attribute of the machine code that says so."""
    code, attribute = kernel.asm["cubin"], bytes([0x04, 0x2F, 8, 0])  # then the kernel's number, and the registers
    begin = code.index(attribute) + len(attribute) + 4
    return int.from_bytes(code[begin : begin + 4], "little")


def tile(dtype: str, rows: int, swizzle: int) -> str:
    """The type of a descriptor of tiles of 128 bytes a row."""
    layout = gl.NVMMASharedLayout(swizzle_byte_width=swizzle, element_bitwidth=8, rank=2)
    return f"tensordesc<{dtype}[{rows},128],{layout!r}>"


def topk_of_many_rows() -> Any:
    from dsa_exec.ops.topk.kernels.many_rows import _many_rows_kernel
    from dsa_exec.ops.topk.many_rows_launch import many_rows_launch

    launch = many_rows_launch(4096, 65536, 2048)
    constants = {
        "CAPACITY": launch.capacity,
        "SAMPLE": launch.sample,
        "VECTORS": launch.vectors,
        "CELLS": launch.cells,
        "ONLY_CELLS": False,
        "AHEAD_BYTES": launch.ahead_bytes,
        "HAS_STARTS": True,
        "TO_SLOTS": True,
        "LISTED": False,
        "OVERLAP": True,
    }
    return build(_many_rows_kernel, constants, num_warps=launch.warps, maxnreg=launch.registers)


def topk_of_few_rows() -> Any:
    from dsa_exec.ops.topk.kernels.cluster import _layouts, _select_row
    from dsa_exec.ops.topk.launch import cluster_launch

    launch = cluster_launch(32, 65536)
    cells, threads = _layouts(launch)
    constants = {"WINDOWS": True, "TO_SLOTS": True, "OVERLAP": True, "COLUMNS": launch.columns, "BLOCKS": launch.blocks}
    constants |= {"CELLS": cells, "THREADS": threads, "LISTED": False}
    return build(_select_row, constants, num_warps=launch.warps, num_ctas=launch.blocks)


def ragged_logits() -> Any:
    from dsa_exec.ops.mqa_logits.kernels.hopper import logits_kernel
    from dsa_exec.ops.mqa_logits.launch import hopper_launch

    launch = hopper_launch(4096, 64, 65536)
    types = {"q_tiles": tile("fp8e4nv", 256, 128), "key_tiles": tile("fp8e4nv", 128, 128)}
    constants = {"HEADS": 64, "PLACES": launch.stages, "UNROLL": launch.unroll, "CLEAN": True}
    return build(logits_kernel, constants, types, num_warps=4)


def paged_logits(requests: int) -> Callable[[], Any]:
    def built() -> Any:
        from dsa_exec.ops.paged_mqa_logits.kernels.hopper import WARPS, logits_kernel
        from dsa_exec.ops.paged_mqa_logits.launch import hopper_launch

        launch = hopper_launch(requests, 1, 64, 65536)
        types = {"page_lines": tile("u8", 64, 128), "scale_lines": tile("u8", 2, 0), "q": "*fp8e4nv"}
        constants = {"HEADS": 64, "NEXT_N": 1, "ROWS": 1, "UNITS": requests, "STAGES": launch.stages, "CLEAN": True}
        constants |= {"OVERLAP": launch.overlap, "KEPT": launch.kept}
        return build(logits_kernel, constants, types, num_warps=WARPS)

    return built


def fused_select(kind: str) -> Callable[[], Any]:
    def built() -> Any:
        from dsa_exec.ops.index_select.launch import portable_launch

        kernels = importlib.import_module(f"dsa_exec.ops.index_select.kernels.{kind}")
        launch = portable_launch(4096, 1, 64, 128, 65536, 2048, 1)
        constants = {"HEADS": 64, "PADDED_HEADS": 64, "CHANNELS": 128, "ROWS": launch.rows, "PART": launch.channels}
        constants |= {"TILE": launch.tile_keys, "CAPACITY": launch.capacity, "BLOCK": launch.block, "TILED": 0}
        constants |= {"STAGES": launch.stages, "SCALED": True, "AS": "same", "PAGE": 64, "TO_SLOTS": True}
        kernel = getattr(kernels, f"select_{kind}")
        known = {name: value for name, value in constants.items() if name in kernel.arg_names}
        types = {"q": "*fp8e4nv", "keys": "*fp8e4nv", "candidates": "*i64", "counts": "*i32", "picked": "*i32"}
        return build(kernel, known, types, ASTSource, num_warps=launch.warps)

    return built


def fused_hopper(heads: int) -> Callable[[], Any]:
    def built() -> Any:
        from dsa_exec.ops.index_select.hopper_launch import hopper_launch
        from dsa_exec.ops.index_select.kernels.hopper import select_kernel

        launch = hopper_launch()
        types = {"q_tiles": tile("fp8e4nv", 256, 128), "key_tiles": tile("fp8e4nv", 128, 128), "candidates": "*fp32"}
        types |= {"next_group": "*i32", "picked": "*i32"}
        constants = {"HEADS": heads, "PLACES": launch.stages, "CAPACITY": launch.capacity}
        return build(select_kernel, constants, types, num_warps=4)

    return built


def merged_select(kind: str) -> Callable[[], Any]:
    def built() -> Any:
        from dsa_exec.ops.index_select.kernels import merge

        constants = {"ROWS": 4, "CAPACITY": 4096, "BLOCK": 256, "TO_SLOTS": True}
        kernel = getattr(merge, f"merge_{kind}")
        known = {name: value for name, value in constants.items() if name in kernel.arg_names}
        types = {"candidates": "*i64", "counts": "*i32", "picked": "*i32"}
        return build(kernel, known, types, ASTSource, num_warps=4)

    return built


def portable_logits() -> Any:
    from dsa_exec.ops.mqa_logits.kernels.portable import logits_kernel
    from dsa_exec.ops.mqa_logits.launch import portable_launch

    launch = portable_launch("sm90", 4096, 64, 128, 65536, 1)
    constants = {"HEADS": 64, "PADDED_HEADS": 64, "CHANNELS": 128, "ROWS": launch.columns // 64, "CLEAN": False}
    constants |= {"PART": launch.channels, "TILE": launch.tile_keys, "STAGES": launch.stages, "SCALED": True}
    types = {"q": "*fp8e4nv", "keys": "*fp8e4nv"}
    return build(logits_kernel, constants | {"AS": "same"}, types, ASTSource, num_warps=launch.warps)


def narrow_prefill() -> Any:
    from dsa_exec.ops.sparse_mla_prefill.kernels.narrow import attend_narrow
    from dsa_exec.ops.sparse_mla_prefill.launch import hopper_launch

    launch = hopper_launch(16)
    constants = {"HEADS": launch.heads, "BUFFERS": launch.buffers, "HAS_SINK": True}
    constants |= {"COPY_REGISTERS": launch.copy_registers}
    return build(attend_narrow, constants, {"out": "*bf16"}, num_warps=4, maxnreg=128)


def wide_prefill() -> Any:
    from dsa_exec.ops.sparse_mla_prefill.kernels.wide import attend_wide
    from dsa_exec.ops.sparse_mla_prefill.launch import hopper_launch

    launch = hopper_launch(128)
    constants = {"HAS_SINK": True, "COPY_REGISTERS": launch.copy_registers, "REGISTERS": launch.registers}
    return build(attend_wide, constants, {"out": "*bf16"}, num_warps=4, maxnreg=168)


def dense_prefill() -> Any:
    from dsa_exec.ops.dense_mla_prefill.kernels.portable import _attend
    from dsa_exec.ops.dense_mla_prefill.launch import portable_launch

    launch = portable_launch("sm90", 4096, 576, 512, 2)
    constants = {"D": 576, "D_V": 512, "HAS_SINK": True, "UPCAST": False, "STAGES": launch.stages}
    constants |= {"QUERIES": launch.queries, "KEYS": launch.keys, "VALUES": launch.values, "REST": launch.rest}
    return build(_attend, constants, {"out": "*bf16"}, ASTSource, num_warps=launch.warps)


def decode(heads: int, *, lengths: bool = False) -> Callable[[], Any]:
    def built() -> Any:
        from dsa_exec.ops.sparse_mla_decode.kernels.hopper import decode_kernel
        from dsa_exec.ops.sparse_mla_decode.launch import roles_of

        roles = roles_of(heads)
        constants = {
            "HEADS": heads,
            "PRODUCERS": roles.producers,
            "BUFFERS": roles.buffers,
            "GATHER_REGISTERS": roles.gather_registers,
            "PARTS": True,
            "HAS_SINK": True,
            "HAS_LENGTHS": lengths,
            "RAW": roles.raw,
            "BF16": False,
            "BLOCKS": 1,
            "OVERLAP": True,
        }
        types = {"slot_count": "i32", "lengths": "*i32", "out": "*fp16"}
        return build(decode_kernel, constants, types, num_warps=roles.warps, maxnreg=roles.registers)

    return built


def step_copies() -> Any:
    from dsa_exec.ops.step_metadata.kernels.copies import _copy
    from dsa_exec.ops.step_metadata.launch import copy_launch

    launch = copy_launch()
    types = {"entries_ptr": "*i64", "entry_of_program_ptr": "*i32"}
    return build(_copy, {"ELEMENTS": launch.elements}, types, ASTSource, num_warps=launch.warps)


def step_metadata() -> Any:
    from dsa_exec.ops.step_metadata.kernels.portable import _expand
    from dsa_exec.ops.step_metadata.launch import portable_launch

    launch = portable_launch()
    sizes = ("context_stride", "table_stride", "expanded_stride", "row_count", "drafts_to_come", "index_topk")
    types = {name: "*i32" for name in _expand.arg_names if name.endswith("_ptr")} | dict.fromkeys(sizes, "i32")
    constants = {"ROWS": launch.rows, "PAGES": launch.pages, "SUMMED": launch.summed, "SELECTS": True}
    return build(_expand, constants, types, ASTSource, num_warps=launch.warps)


def settled_logits(op: str) -> Callable[[], Any]:
    def built() -> Any:
        kernel = importlib.import_module(f"dsa_exec.ops.{op}.kernels.settle").settle_kernel
        constants = {"CLEAN": True, "COPY": True, "SHIFTED": True, "PAGE": 64, "COLUMNS": 1024}
        known = {name: value for name, value in constants.items() if name in kernel.arg_names}
        return build(kernel, known, {"source": "*fp32", "target": "*fp32"}, ASTSource, num_warps=4)

    return built


def combined_decode() -> Any:
    from dsa_exec.ops.sparse_mla_decode.kernels.combine import combine_kernel
    from dsa_exec.ops.sparse_mla_decode.launch import combine_launch

    launch = combine_launch(32 * 16, 4, 512)
    constants = {"LATENT_DIM": 512, "SLICES": 4, "PLACES": launch.places, "CHANNELS": launch.channels}
    constants |= {"HAS_SINK": True, "OVERLAP": True}
    types = {"sums": "*fp16", "tops": "*fp32", "out": "*bf16"}
    return build(combine_kernel, constants, types, ASTSource, num_warps=launch.warps)


def attention_merge() -> Any:
    from dsa_exec.ops.attention_merge.kernels.portable import merge_kernel
    from dsa_exec.ops.attention_merge.launch import portable_launch

    launch = portable_launch(8, 128, 128, 512, multiprocessors=132)
    constants = {"D": 512, "HEADS": launch.heads, "CHANNELS": launch.channels, "PARTS": launch.parts, "HAS_SINK": True}
    types = {"outs": "*bf16", "lses": "*fp32", "out": "*bf16", "outs_part_stride": "i64"}
    return build(merge_kernel, constants, types, ASTSource, num_warps=launch.warps)


def merged_candidates(held: int) -> Callable[[], Any]:
    def built() -> Any:
        from dsa_exec.ops.topk_merge.kernels.portable import _merge_row
        from dsa_exec.ops.topk_merge.launch import portable_launch

        launch = portable_launch(2048)
        flags = {"FIND": True, "NUMBERED": True, "LISTED_BLOCKS": False, "TO_SLOTS": True, "LISTED": False}
        pointers = ("candidates_ptr", "bounds_ptr", "counts_ptr", "blocks_ptr")
        types = dict.fromkeys(pointers, "*i32")
        return build(
            _merge_row, {**flags, "HELD": held, "BLOCK": launch.block}, types, ASTSource, num_warps=launch.warps
        )

    return built


def told_candidates() -> Any:
    from dsa_exec.ops.topk_candidates.kernels.portable import _tell
    from dsa_exec.ops.topk_candidates.launch import portable_launch

    launch = portable_launch(2048)
    constants = {"WINDOWS": True, "LISTED": True, "BLOCK": launch.block}
    types = dict.fromkeys(("logits_ptr", "blocks_ptr", "told_ptr"), "*i32")
    return build(_tell, constants, types, ASTSource, num_warps=launch.warps)


def around_a_vendor(name: str, **constants: Any) -> Callable[[], Any]:
    def built() -> Any:
        from dsa_exec.core.kernels import vendor_attention

        types = {"out": "*i16", "to_out": "*i16", "to_lse": "*fp32", "selects": "*i8", "named": "*i32"}
        return build(getattr(vendor_attention, name), constants, types, ASTSource, num_warps=4)

    return built


BUILDS = {
    "topk, many rows": topk_of_many_rows,
    "topk, few rows": topk_of_few_rows,
    "index_select, 64 heads": fused_hopper(64),
    "index_select, 32 heads": fused_hopper(32),
    "index_select, gathered": fused_select("gathered"),
    "index_select, paged": fused_select("paged"),
    "index_select, gathered spans": merged_select("gathered"),
    "index_select, paged spans": merged_select("paged"),
    "mqa_logits": ragged_logits,
    "mqa_logits, portable": portable_logits,
    "paged_mqa_logits": paged_logits(128),
    "paged_mqa_logits, few pages": paged_logits(1),
    "sparse_mla_prefill, narrow": narrow_prefill,
    "sparse_mla_prefill, wide": wide_prefill,
    "dense_mla_prefill": dense_prefill,
    "sparse_mla_decode, 16 heads": decode(16),
    "sparse_mla_decode, 16 heads, lengths": decode(16, lengths=True),
    "sparse_mla_decode, 32 heads": decode(32),
    "sparse_mla_decode, 64 heads": decode(64),
    "sparse_mla_decode, slices put together": combined_decode,
    "attention_merge": attention_merge,
    "topk_candidates": told_candidates,
    "topk_merge, keys held": merged_candidates(2),
    "topk_merge, keys read anew": merged_candidates(0),
    "indices, before a vendor": around_a_vendor("_name_kernel", BLOCK=1024),
    "attention, copied after a vendor": around_a_vendor("_copy_kernel", HEADS=8, CHANNELS=512),
    "attention, cleared after a vendor": around_a_vendor("_clear_kernel", HEADS=8, CHANNELS=512),
    "step metadata": step_metadata,
    "mqa_logits, after a vendor": settled_logits("mqa_logits"),
    "paged_mqa_logits, after a vendor": settled_logits("paged_mqa_logits"),
    "step copies": step_copies,  # its addresses come from memory, which an interpreter may see otherwise
}


def main() -> None:
    """Print, as JSON, what each kernel takes of shared memory, or why it cannot be built."""
    found: dict[str, int | str] = {}
    for name, make in BUILDS.items():
        try:
            found[name] = make().metadata.shared
        except Exception as error:  # reported, whatever the compiler says
            found[name] = f"{type(error).__name__}: {error}"
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
