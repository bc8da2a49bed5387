"""The steps of a draft chain: their metadata is worked out once and copied to all of them, or worked out for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dsa_config import settings
from dsa_exec.core.checks import INDEX_DTYPES, Arguments
from dsa_exec.core.errors import ShapeError
from dsa_exec.runtime.step import Step
from dsa_exec.runtime.step_copies import StepCopies


class DraftSteps:
    """The steps of a chain that drafts tokens, one step a token, over the same requests.

    Steps with the same offset hold the same values: the first of them is worked out, the others are copies. Engines of
    DeepSeek sparse attention give all steps the lengths of the first; those of dense attention give step i `seq_lens`
    and i tokens more, which offsets say.

    Attributes:
        steps: the steps, in their order.
        offsets: how many tokens each sees beyond `seq_lens`.
    """

    def __init__(self, steps: Sequence[Step], *, offsets: Sequence[int] | None = None) -> None:
        """Prepare the copies. The steps' values stay what they are until `refresh`.

        Args:
            steps: at least one, all of the same mode, shapes and `index_topk`, each with tensors of its own.
            offsets: for each step; 0 for all if not given.

        Raises:
            ArgumentError: no step, steps of different kinds, or another number of offsets, or one below 0.
            CopiesInCapture: a CUDA graph is being captured.
        """
        self.steps = tuple(steps)
        self.offsets = (0,) * len(self.steps) if offsets is None else tuple(offsets)
        if not self.steps:
            raise ShapeError("draft steps", "steps", "has no step", "at least one")
        for number, step in enumerate(self.steps):
            if any(step is other for other in self.steps[:number]):
                raise ShapeError("draft steps", f"steps[{number}]", "is there twice", "steps with tensors of their own")
            if step.kind != self.steps[0].kind:
                came = f"is a step of {step.kind}"
                raise ShapeError("draft steps", f"steps[{number}]", came, f"{self.steps[0].kind}, as the first is")
        if len(self.offsets) != len(self.steps):
            came = f"has {len(self.offsets)} numbers"
            raise ShapeError("draft steps", "offsets", came, f"{len(self.steps)}, one for each step")
        args = Arguments("draft steps")
        for offset in self.offsets:
            args.number(offset, "offsets", low=0)
        # The greatest offset is first, so that a length that is too long for it is told before any step is written to.
        self._copies = tuple(
            (offset, StepCopies(first, others))
            for offset, (first, *others) in sorted(self._by_offset().items(), reverse=True)
        )

    def refresh(self, seq_lens: torch.Tensor, page_table: torch.Tensor) -> None:
        """Give every step the values of these lengths and pages, in place.

        With `enable_mtp_precompute_metadata` each different offset is worked out once and copied, otherwise each step
        is worked out by itself. The values are the same.

        Args:
            seq_lens: int [b], as `prepare_step` takes it for a step whose offset is 0.
            page_table: int32 [b, pages].

        Raises:
            ArgumentError: as `prepare_step`.
        """
        Arguments("draft steps").tensor(seq_lens, "seq_lens", "b", dtype=INDEX_DTYPES)
        once = settings.enable_mtp_precompute_metadata
        for offset, copies in self._copies:
            lens = seq_lens if offset == 0 else seq_lens.long() + offset  # what int32 cannot hold is told, not wrapped
            copies.source.refresh(lens, page_table)
            if once:
                copies.run()
            else:
                for step in copies.destinations:
                    step.refresh(lens, page_table)

    def _by_offset(self) -> dict[int, list[Step]]:
        found: dict[int, list[Step]] = {}
        for step, offset in zip(self.steps, self.offsets, strict=True):
            found.setdefault(offset, []).append(step)
        return found
