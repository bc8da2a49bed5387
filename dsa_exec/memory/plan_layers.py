"""Which layers a pipeline stage has. The planner and the pools both ask here, so that they cannot disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsa_exec.core.errors import PlanError


@dataclass(frozen=True, slots=True)
class LayerSlice:
    """The layers [start, end) of a model that has `total`; draft layers are not counted.

    Attributes:
        start: the first layer.
        end: the one after the last.
        total: layers of the model.
    """

    start: int
    end: int
    total: int

    @property
    def local(self) -> int:
        """How many layers these are."""
        return self.end - self.start

    @property
    def layers(self) -> range:
        """Their numbers in the model."""
        return range(self.start, self.end)

    def __str__(self) -> str:
        """Half open, as in "[22,43)"."""
        return f"[{self.start},{self.end})"


def layer_slices(total: int, stages: int, stage_layers: Sequence[int] | None = None) -> tuple[LayerSlice, ...]:
    """The layers of every stage, in order: together all layers, each once.

    Args:
        total: layers of the model.
        stages: pipeline stages.
        stage_layers: how many layers each stage has. By default `total // stages`, and one more in each of the first
            `total % stages` stages.

    Raises:
        PlanError: a stage would have no layer, or the given numbers are not one for each stage or do not add up.
    """
    if stage_layers is None:
        if stages > total:
            raise PlanError("pp", stages, f"at most {total}, the model's layers: each stage needs at least one")
        each, more = divmod(total, stages)
        stage_layers = [each + (stage < more) for stage in range(stages)]
    named = ",".join(map(str, stage_layers))
    if len(stage_layers) != stages:
        raise PlanError("layers of each stage", named, f"{stages} numbers, one for each stage (pp={stages})")
    for stage, layers in enumerate(stage_layers):
        if layers < 1:
            raise PlanError("layers of each stage", named, f"at least one layer in each; stage {stage} has {layers}")
    if sum(stage_layers) != total:
        raise PlanError("layers of each stage", named, f"a sum of {total}, the model's layers, not {sum(stage_layers)}")
    ends = [sum(stage_layers[: stage + 1]) for stage in range(stages)]
    return tuple(LayerSlice(end - local, end, total) for local, end in zip(stage_layers, ends, strict=True))
