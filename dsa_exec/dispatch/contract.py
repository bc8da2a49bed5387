"""The shape of a contract: what every backend of an op must get right, as cases that can be run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Case:
    """One call of an op's public function.

    Attributes:
        name: what is special about it.
        make: the keyword arguments, drawn with the generator (a CPU one) and put on the device. The same generator
            state gives the same arguments.
        settings: settings to override for the call.
        tolerance: instead of the contract's, by tensor name.
    """

    name: str
    make: Callable[[torch.Generator, torch.device], dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    tolerance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contract:
    """An op's contract. Each op's `contract.py` has one, as `CONTRACT`.

    Attributes:
        op: the op.
        cases: calls that every backend must take or refuse, and get right.
        result: what to judge of a call: takes the case's arguments and what the function returned, gives named tensors.
            For ops that write into a cache it reads them from there.
        tolerance: by tensor name, the largest difference allowed, as a share of the largest magnitude expected. Names
            that are not listed must be equal to the bit.
        accelerated: the same for a backend other than the specification on an accelerator, by tensor name, where it is
            more: matrix units sum products of e4m3 with fewer bits than f32 has.
        coarser: the same for single backends, by their names: for vendors' kernels that round more than they must.
    """

    op: str
    cases: tuple[Case, ...]
    result: Callable[[dict[str, Any], Any], dict[str, torch.Tensor]]
    tolerance: dict[str, float] = field(default_factory=dict)
    accelerated: dict[str, float] = field(default_factory=dict)
    coarser: dict[str, dict[str, float]] = field(default_factory=dict)

    def judge(
        self,
        case: Case,
        got: dict[str, torch.Tensor],
        wanted: dict[str, torch.Tensor],
        *,
        accelerated: bool = False,
        backend: str = "",
    ) -> list[str]:
        """What is wrong with a result, in words; nothing if it is right.

        Args:
            case: which call it is of.
            got: what `result` makes of the backend's call.
            wanted: the same of the reference.
            accelerated: the backend is not the specification, and ran on an accelerator.
            backend: its name.
        """
        allowed = {**self.tolerance, **case.tolerance}
        for more in (self.accelerated if accelerated else {}, self.coarser.get(backend, {})):
            allowed.update({name: max(share, allowed.get(name, 0.0)) for name, share in more.items()})
        problems = (_problem(name, got[name], wanted[name], allowed.get(name, 0.0)) for name in wanted)
        return [problem for problem in problems if problem]


def _problem(name: str, got: torch.Tensor, wanted: torch.Tensor, allowed: float) -> str | None:
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return f"{name}: {got.dtype} {list(got.shape)}, wanted {wanted.dtype} {list(wanted.shape)}"
    if allowed == 0.0:
        differ = (got.cpu() != wanted.cpu()).sum()
        return f"{name}: {int(differ)} of {wanted.numel()} differ" if differ else None
    left, right = got.cpu().double(), wanted.cpu().double()
    finite = right.isfinite()
    if not torch.equal(left.isfinite(), finite) or not torch.equal(left[~finite], right[~finite]):
        return f"{name}: infinities or NaNs are in other places"
    scale, worst = (float(part[finite].abs().max()) if finite.any() else 0.0 for part in (right, left - right))
    return f"{name}: off by {worst:.3g}, more than {allowed:.0e} of {scale:.3g}" if worst > allowed * scale else None


def normal(
    generator: torch.Generator, device: torch.device, *shape: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Fresh normal numbers."""
    return torch.randn(*shape, generator=generator).to(device=device, dtype=dtype)


def picks(generator: torch.Generator, rows: int, k: int, population: int) -> torch.Tensor:
    """For each row, k different numbers below `population`, in any order: int32 [rows, k] on the CPU."""
    chosen = [torch.randperm(population, generator=generator)[:k] for _ in range(rows)]
    return torch.stack(chosen).to(torch.int32) if rows else torch.zeros(0, k, dtype=torch.int32)


def with_holes(generator: torch.Generator, indices: torch.Tensor, beyond: int) -> torch.Tensor:
    """Indices as a caller may give them: a row of -1, a row with numbers beyond the end, and -1 here and there."""
    indices = indices.where(torch.rand(indices.shape, generator=generator) >= 0.4, -1)
    indices[0] = -1
    hostile = torch.tensor([beyond, 2**31 - 1, -(2**31)], dtype=torch.int32)
    indices[1, ::2] = hostile.repeat(indices.shape[1])[: indices[1, ::2].numel()]
    return indices


def page_table(device: torch.device, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """A page table of these rows; of one column if there are none."""
    return index(device, *rows).reshape(len(rows), len(rows[0]) if rows else 1)


def index(device: torch.device, *rows: object, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """An index tensor of these numbers."""
    return torch.tensor(rows, dtype=dtype, device=device)
