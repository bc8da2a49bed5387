"""What every backend of `sparse_mla_decode` must get right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.caches.samples import POISON, random_mla_cache
from dsa_exec.dispatch.contract import Case, Contract, normal, picks, with_holes
from dsa_exec.layouts.mla_kv import MlaLayout

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]
Change = Callable[[dict[str, Any]], None]


def _attend(
    rows: int,
    heads: int,
    k: int,
    *,
    layout: MlaLayout | None = None,
    dtype: torch.dtype = torch.float32,
    holes: bool = False,
    sink: bool = False,
    change: Change | None = None,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        laid = layout or MlaLayout()
        cache = random_mla_cache(generator, laid, 3, device)
        slots = picks(generator, rows, k, cache.slots - 2) + 1
        if holes:
            slots = with_holes(generator, slots, cache.slots)
            # What -1 would address, clamped or not; nobody selects it.
            cache.data[[0, -1]] = POISON if laid.format == "fp8" else torch.nan
        args = {
            "q": normal(generator, device, rows, heads, laid.width, dtype=dtype),
            "cache": cache,
            "slots": slots.to(device),
            "sm_scale": laid.width**-0.5,
        }
        if sink:
            args["attn_sink"] = normal(generator, device, heads)
            args["attn_sink"][0] = -torch.inf  # as if there were none
        if change is not None:
            change(args)
        return args

    return make


def _poison_the_rest(args: dict[str, Any]) -> None:
    """NaN in every slot that no row selects."""
    cache: MlaCache = args["cache"]
    chosen = args["slots"][(args["slots"] >= 0) & (args["slots"] < cache.slots)].long()
    rest = torch.ones(cache.slots, dtype=torch.bool, device=cache.data.device)
    rest[chosen] = False
    cache.data[rest] = POISON if cache.layout.format == "fp8" else torch.nan


def _select_the_last(args: dict[str, Any]) -> None:
    args["slots"][:, 0] = args["cache"].slots - 1
    _poison_the_rest(args)


def _select_nothing(args: dict[str, Any]) -> None:
    args["slots"].fill_(-1)
    _poison_the_rest(args)


def _select_only_late(args: dict[str, Any]) -> None:
    """Whole slices without a slot."""
    args["slots"][0, :-3] = -1
    args["slots"][1, 3:] = -1
    args["slots"][2] = -1
    _poison_the_rest(args)


def _look_at_some(args: dict[str, Any]) -> None:
    """Lengths of every kind; what is beyond them is poisoned."""
    slots = args["slots"]
    lengths = torch.tensor([0, 1, 40, 64, 65, 2**31 - 1, -3], dtype=torch.int32, device=slots.device)
    args["topk_length"] = lengths[: len(slots)].clone()
    beyond = torch.arange(slots.shape[1], device=slots.device) >= args["topk_length"][:, None]
    kept = slots.where(~beyond, -1)
    args["slots"] = kept
    _poison_the_rest(args)
    args["slots"] = slots


def _score_all_the_same(args: dict[str, Any]) -> None:
    args["q"].zero_()


def _score_far_apart(args: dict[str, Any]) -> None:
    """Weights from 1 to what f32 has no number for."""
    args["q"] *= 60


def _score_far_apart_exactly(args: dict[str, Any]) -> None:
    """The same with scales that are powers of two: a score of hundreds would show where latents are rounded to bf16."""
    scales = args["cache"].data[:, 512:528].view(torch.float32)
    scales.copy_(torch.exp2(scales.log2().round()))
    _score_far_apart(args)


def _keep_heads_apart(args: dict[str, Any]) -> None:
    """Queries of every second head, and slots of every second row, of tensors that hold NaN and a huge slot."""
    q, slots = args["q"], args["slots"]
    wide = q.new_full((q.shape[0], 2 * q.shape[1], q.shape[2] + 8), torch.nan)
    args["q"] = wide[:, ::2, : q.shape[2]].copy_(q)
    args["slots"] = slots.new_full((2 * slots.shape[0], slots.shape[1] + 1), 2**30)[::2, :-1].copy_(slots)


def _keep_as(dtype: torch.dtype) -> Change:
    """The model format in another dtype."""

    def change(args: dict[str, Any]) -> None:
        data = args["cache"].data.to(dtype)
        layout = dataclasses.replace(args["cache"].layout, element_bytes=dtype.itemsize)
        args["cache"] = MlaCache(data, layout)

    return change


_MODEL = MlaLayout("model", latent_dim=32, rope_dim=16, element_bytes=4)
_ODD = MlaLayout("model", latent_dim=20, rope_dim=6, element_bytes=4)
_SLICED = {"kernel_launch": "sparse_mla_decode.triton.slices=3, sparse_mla_decode.gluon.slices=3"}


def _bf16(name: str, rows: int, heads: int, k: int, *, settings: dict[str, Any] | None = None, **options: Any) -> Case:
    """A case with bf16 queries: its output is rounded to bf16, 2^-9 of each number."""
    make = _attend(rows, heads, k, dtype=torch.bfloat16, **options)
    return Case(name, make, settings or {}, tolerance={"out": 8e-3})


CONTRACT = Contract(
    op="sparse_mla_decode",
    cases=(
        Case("ordinary", _attend(3, 16, 64)),
        Case("one row and one head", _attend(1, 1, 64)),
        Case("12 heads", _attend(2, 12, 33)),
        Case("128 heads", _attend(2, 128, 64)),
        Case("no row", _attend(0, 16, 64)),
        Case("nothing selected", _attend(2, 4, 0)),
        Case("holes and hostile slots", _attend(4, 8, 64, holes=True)),
        Case("lengths", _attend(7, 16, 130, change=_look_at_some)),
        Case("lengths, in slices", _attend(7, 8, 200, sink=True, change=_look_at_some), settings=_SLICED),
        _bf16("lengths, bf16", 7, 16, 130, change=_look_at_some),
        _bf16("lengths, bf16 in slices", 7, 64, 300, sink=True, change=_look_at_some, settings=_SLICED),
        Case("attention sink", _attend(3, 8, 64, sink=True)),
        Case("sink and holes", _attend(4, 8, 64, holes=True, sink=True)),
        Case("bf16", _attend(2, 16, 64, dtype=torch.bfloat16), tolerance={"out": 8e-3}),
        Case("nothing quantised", _attend(3, 4, 8, layout=_MODEL)),
        Case("nothing quantised, with holes", _attend(4, 4, 8, layout=_MODEL, holes=True)),
        Case("every slot is -1", _attend(2, 4, 40, sink=True, change=_select_nothing)),
        Case("the last slot", _attend(2, 4, 20, change=_select_the_last)),
        Case("slices without a slot", _attend(4, 4, 100, sink=True, change=_select_only_late), _SLICED),
        Case("equal scores", _attend(2, 4, 40, change=_score_all_the_same)),
        # Scores in the thousands, whose last bit in f32 is worth 1e-4 of a weight: devices add in other orders.
        Case("scores far apart", _attend(2, 4, 40, change=_score_far_apart), tolerance={"out": 1e-4}),
        Case("f16", _attend(2, 5, 40, dtype=torch.float16), tolerance={"out": 1e-3}),
        Case("odd widths", _attend(3, 5, 17, layout=_ODD, holes=True, sink=True)),
        Case("odd widths in slices", _attend(3, 5, 100, layout=_ODD, sink=True, change=_select_only_late), _SLICED),
        Case("f16 cache", _attend(2, 4, 20, layout=_MODEL, change=_keep_as(torch.float16))),
        _bf16("bf16 cache", 2, 4, 20, layout=_MODEL, change=_keep_as(torch.bfloat16)),
        _bf16("bf16, f16 cache", 2, 4, 20, layout=_MODEL, change=_keep_as(torch.float16)),
        _bf16("bf16, one slot", 3, 1, 1, sink=True),
        _bf16("bf16, nothing selected", 2, 4, 0),
        _bf16("bf16, 7 heads, holes and a sink", 4, 7, 100, holes=True, sink=True),
        _bf16("bf16, 32 heads in slices", 2, 32, 190, sink=True, settings=_SLICED),
        _bf16("bf16, 48 heads", 2, 48, 65, sink=True),
        _bf16("bf16, 96 heads", 1, 96, 130),
        _bf16("bf16, 128 heads, holes and a sink", 2, 128, 70, holes=True, sink=True),
        *(_bf16(f"bf16, {heads} heads", 3, heads, 70, holes=True) for heads in (8, 12, 24, 64)),
        _bf16("bf16, every slot is -1", 2, 16, 70, sink=True, change=_select_nothing),
        _bf16("bf16, the last slot", 2, 16, 20, change=_select_the_last),
        _bf16("bf16, slices without a slot", 4, 16, 190, sink=True, change=_select_only_late, settings=_SLICED),
        _bf16("bf16, equal scores", 2, 16, 100, change=_score_all_the_same),
        _bf16("bf16, scores far apart", 2, 16, 100, change=_score_far_apart_exactly),
        _bf16("bf16, heads apart", 3, 16, 70, change=_keep_heads_apart),
    ),
    result=lambda _, returned: {"out": returned[0], "lse": returned[1]},
    tolerance={"out": 5e-6, "lse": 5e-6},
    # Latents that are multiplied as 16-bit numbers are off by up to 2^-11 each, and so are single scores.
    accelerated={"lse": 5e-4},
    # On sm90 it rounds the scales of the cache to bf16, and their products with the codes.
    coarser={"flash_mla": {"out": 1.6e-2, "lse": 4e-3}},
)
