"""Times prefills and steps of one token, with the most that they allocate, and tells what did not run and why."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.transformers.record import ContextRow, Pass
from dsa_config import settings
from dsa_exec.core.errors import OutOfMemory
from dsa_exec.core.out_of_memory import is_out_of_memory, release_memory
from dsa_exec.integrations.transformers import DsaCache, attached

PLAIN = "plain transformers"
WARM_UP_STEPS, STEPS = 8, 16
"""Steps of one token before those that are timed, and how many are. A cache has room for all of them."""


@dataclass(frozen=True)
class Way:
    """One way of running the model.

    Attributes:
        name: in the table.
        formats: of our caches; None: plain transformers.
        is_compiled: steps of one token are compiled with CUDA graphs.
    """

    name: str
    formats: dict[str, str] | None
    is_compiled: bool = False


FP8 = Way("dsa, fp8", {"index_k_format": "fp8", "kv_format": "fp8"})
MODEL = Way("dsa, model's dtype", {"index_k_format": "model", "kv_format": "model"})
COMPILED = Way("dsa, fp8, compiled steps", {"index_k_format": "fp8", "kv_format": "fp8"}, is_compiled=True)


def measure(model: Any, contexts: list[int], ways: list[Way], repeats: int) -> Iterator[ContextRow]:
    """Measure every way over every context."""
    for tokens in contexts:
        for way in ways:
            with _on(way, model), torch.no_grad():
                yield _Run(model, way, tokens, repeats).row()
            release_memory(model.device)


@contextmanager
def _on(way: Way, model: Any) -> Iterator[None]:
    if way.formats is None:
        yield
        return
    with settings.override(**way.formats), attached(model):
        yield


class _Run:
    """One way over one context."""

    def __init__(self, model: Any, way: Way, tokens: int, repeats: int) -> None:
        self.model, self.way, self.tokens, self.repeats = model, way, tokens, repeats
        generator = torch.Generator().manual_seed(0)
        shape = 1, tokens + WARM_UP_STEPS + STEPS
        ids = torch.randint(model.config.vocab_size, shape, generator=generator)
        self.ids = ids.to(model.device)

    def row(self) -> ContextRow:
        """The figures."""
        prefill = self._passed(self._prefill, self.repeats)
        cache = None
        if prefill.failure is None:
            cache = self._prefill()
        elif self.way.formats is None:
            cache = self._filled()
        is_filled = cache is not None and prefill.failure is not None
        if cache is None:
            return ContextRow(tokens=self.tokens, way=self.way.name, prefill=prefill, decode=Pass(failure="no cache"))
        held = _bytes_of(cache)
        decode = self._passed(self._stepper(cache), STEPS, warm_up=WARM_UP_STEPS)
        return ContextRow(
            tokens=self.tokens,
            way=self.way.name,
            prefill=prefill,
            decode=decode,
            cache_bytes=held,
            is_filled=is_filled,
        )

    def _prefill(self) -> Any:
        cache: Any = DynamicCache(config=self.model.config)
        if self.way.formats is not None:
            cache = DsaCache.for_model(self.model, max_tokens=self.ids.shape[1])
        self.model(self.ids[:, : self.tokens], past_key_values=cache, logits_to_keep=1)
        return cache

    def _stepper(self, cache: Any) -> Callable[[], Any]:
        forward = self.model.forward
        if self.way.is_compiled:
            torch._dynamo.reset()  # sizes of the context before would make those of this one dynamic
            forward = torch.compile(forward, mode="reduce-overhead", fullgraph=True)
        steps = iter(range(self.tokens, self.ids.shape[1]))

        def step() -> None:
            at = next(steps)
            if self.way.is_compiled:
                torch.compiler.cudagraph_mark_step_begin()
            forward(input_ids=self.ids[:, at : at + 1], past_key_values=cache, logits_to_keep=1)

        return step

    def _filled(self) -> Any:
        """A cache of transformers with random numbers: its layers' tensors, as a short prefill makes them, longer."""
        try:
            cache = DynamicCache(config=self.model.config)
            self.model(self.ids[:, :2], past_key_values=cache, logits_to_keep=1)
            layers: list[Any] = cache.layers
            for layer in layers:
                for name in ("keys", "values", "indexer_keys"):
                    short = getattr(layer, name)
                    shape = *short.shape[:-2], self.tokens, short.shape[-1]
                    setattr(layer, name, torch.randn(shape, dtype=short.dtype, device=short.device))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        return cache

    def _passed(self, run: Callable[[], Any], repeats: int, warm_up: int = 1) -> Pass:
        device = self.model.device
        try:
            release_memory(device)
            before = _allocated(device)
            for _ in range(warm_up):
                run()
            extra = _peak(device, before)
            seconds = [_seconds(run, device) for _ in range(repeats)]
        except (RuntimeError, OutOfMemory) as error:
            if not (is_out_of_memory(error) or isinstance(error, OutOfMemory)):
                raise
            return Pass(failure=_in_short(error))
        finally:
            release_memory(device)
        return Pass(milliseconds=statistics.median(seconds) * 1e3, extra_bytes=extra)


def _allocated(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device, before: int) -> int | None:
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    begin = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def _bytes_of(cache: Any) -> int:
    """What the tensors of a cache take."""
    layers: list[Any] = cache.layers
    if isinstance(cache, DsaCache):
        return sum(it.data.nbytes for layer in layers for it in (layer.mla, layer.index_k) if it is not None)
    tensors = [getattr(layer, name) for layer in layers for name in ("keys", "values", "indexer_keys")]
    return sum(it.nbytes for it in tensors)


def _in_short(error: Exception) -> str:
    """The first sentence of an error, with what was asked for if it says so."""
    sentences = str(error).strip().splitlines()[0].split(". ")
    return ". ".join(sentences[:2]).rstrip(".")
