"""How the next token is chosen from logits: the likeliest, or drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import RangeError

Choose = Callable[[torch.Tensor], int]
"""Gives a token for its f32 [vocabulary] logits on the CPU. Called once for each new token, in order."""

MOST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: logits are divided by it. 0: nothing is drawn, the likeliest token is taken.
        top_k: draw among so many of the likeliest tokens only; None: among all.
        top_p: draw among the fewest likeliest tokens only that have this probability together; None: among all.
        seed: the same seed draws the same tokens from the same logits.

    Raises:
        RangeError: a number that means nothing.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise RangeError("Sampling", "temperature", f"is {self.temperature}", "a number of at least 0")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RangeError("Sampling", "top_p", f"is {self.top_p}", "a number above 0 and at most 1")
        args = Arguments("Sampling")
        if self.top_k is not None:
            args.number(self.top_k, "top_k", low=1)
        args.number(self.seed, "seed", low=0, high=MOST_SEED)

    @property
    def is_greedy(self) -> bool:
        """Nothing is drawn."""
        return self.temperature == 0

    def chooser(self, request: int = 0) -> Choose:
        """A fresh start of the choices for one request: two of them choose the same from the same logits.

        Args:
            request: its number. Each has draws of its own, which do not depend on how many others there are.
        """
        return likeliest if self.is_greedy else _Draws(self, request)


def likeliest(logits: torch.Tensor) -> int:
    """The token with the largest logit; of equal ones the first."""
    return int(logits.argmax())


class _Draws:
    """Draws with Gumbel noise: the largest of logits plus noise has the probability of a draw from their softmax.

    The noise does not depend on the logits. So two models that are given the same noise and almost the same logits
    draw the same token, except where the two best sums are closer than the logits differ.
    """

    def __init__(self, sampling: Sampling, request: int) -> None:
        self._sampling = sampling
        self._generator = torch.Generator().manual_seed((sampling.seed + request) & MOST_SEED)

    def __call__(self, logits: torch.Tensor) -> int:
        scaled = (logits.double() - logits.double().max()) / self._sampling.temperature
        uniform = torch.rand(scaled.shape, generator=self._generator, dtype=torch.float64)
        noise = -torch.log(-torch.log(uniform))
        return int((self._among_likeliest(scaled) + noise).argmax())

    def _among_likeliest(self, scaled: torch.Tensor) -> torch.Tensor:
        """The logits, with those of tokens that are not to be drawn at minus infinity."""
        top_k, top_p = self._sampling.top_k, self._sampling.top_p
        if top_k is None and top_p is None:
            return scaled
        ordered, tokens = scaled.sort(descending=True, stable=True)
        kept = torch.ones_like(tokens, dtype=torch.bool)
        if top_k is not None:
            kept[top_k:] = False
        if top_p is not None:
            shares = ordered.where(kept, -math.inf).softmax(0)
            kept &= shares.cumsum(0) - shares < top_p
        return torch.full_like(scaled, -math.inf).scatter_(0, tokens[kept], ordered[kept])
