"""What every backend of `step_metadata` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.dispatch.contract import Case, Contract, index
from dsa_exec.ops.step_metadata.lengths import Mode
from dsa_exec.ops.step_metadata.metadata import StepMetadata

NEVER_WRITTEN = -(2**31)


def _step(
    mode: Mode,
    lens: Sequence[int],
    n: int = 1,
    *,
    pages: int | None = None,
    topk: int | None = None,
    dtype: torch.dtype = torch.int32,
    apart: int = 0,
    given: bool = False,
) -> Callable[[torch.Generator, torch.device], dict[str, Any]]:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        args: dict[str, Any] = {"mode": mode, "seq_lens": index(device, *lens, dtype=dtype), "n": n}
        if pages is not None:
            table = torch.randint(-1, 999, (len(lens), pages + apart), generator=generator, dtype=torch.int32)
            args["page_table"] = table.to(device)[:, :pages]
        if topk is not None:
            args["index_topk"] = topk
        if given:
            args["out"] = _never_written(len(lens), n, device, pages, apart, selects=topk is not None)
        return args

    return make


def _never_written(
    b: int, n: int, device: torch.device, pages: int | None, apart: int, *, selects: bool
) -> StepMetadata:
    def full(*shape: int) -> torch.Tensor:
        return torch.full(shape, NEVER_WRITTEN, dtype=torch.int32, device=device)

    table = None if pages is None else full(b * n, pages + apart)[:, :pages]
    selected = (full(b * n), full(b + 1), full(b * n + 1)) if selects else (None, None, None)
    return StepMetadata(full(b), full(b, n), full(b * n), table, *selected)


def _result(args: dict[str, Any], returned: StepMetadata) -> dict[str, torch.Tensor]:
    names = ["cache_lens", "context_lens", "row_lens", "request_of_row"]
    names += ["page_table"] if "page_table" in args else []
    names += ["dsa_cache_lens", "cu_cache_lens", "cu_dsa_cache_lens"] if "index_topk" in args else []
    return {name: getattr(returned, name) for name in names}


CONTRACT = Contract(
    op="step_metadata",
    cases=(
        Case("decode", _step("decode", [5, 70, 1, 0], pages=3)),
        Case("decode without pages", _step("decode", [5, 70, 1])),
        Case("verify", _step("target_verify", [10, 20, 0], 3, pages=3)),
        Case("verify of one draft", _step("target_verify", [10, 20], 1, pages=2)),
        Case("drafts", _step("draft_extend", [10, 4, 200], 4, pages=5)),
        Case("fewer tokens than drafts", _step("draft_extend", [1, 0, 3], 6, pages=2)),
        Case("one request", _step("target_verify", [64], 2, pages=1)),
        Case("no request", _step("target_verify", [], 3, pages=2)),
        Case("no page", _step("draft_extend", [3, 4], 2, pages=0)),
        Case("many rows", _step("target_verify", range(100), 3, pages=2)),
        Case("a wide table", _step("decode", [9000], pages=1100)),
        Case("int64 lengths", _step("draft_extend", [9, 2**31 - 1], 2, dtype=torch.int64)),
        Case("the longest that int32 holds", _step("target_verify", [2**31 - 4, 2**31 - 5], 3)),
        Case("into given tensors", _step("draft_extend", [3, 9], 2, pages=3, given=True)),
        Case("into given tensors with rows apart", _step("target_verify", [3, 9], 2, pages=3, apart=2, given=True)),
        Case("decode that selects", _step("decode", [5, 70, 1, 0, 64], pages=3, topk=64)),
        Case("verify that selects", _step("target_verify", [10, 61, 0, 200], 4, pages=3, topk=64)),
        Case("drafts that select", _step("draft_extend", [3, 0, 9], 5, topk=4)),
        Case("one selected position", _step("target_verify", [0, 3], 2, topk=1)),
        Case("no request that selects", _step("decode", [], pages=2, topk=64)),
        Case("sums of many rows", _step("target_verify", range(900), 3, topk=300)),
        Case("sums beyond int32", _step("draft_extend", [2**31 - 1, 2**31 - 2, 5], 2, topk=2**31 - 1)),
        Case("selected lengths into given tensors", _step("draft_extend", [3, 9], 2, pages=3, topk=8, given=True)),
    ),
    result=_result,
)
