"""The pipeline stages of a split, as far as time and memory need them: layers by kind, weights, room for tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_choices import choices_of
from dsa_exec.memory.plan_layers import layer_slices
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_world import World
from dsa_exec.planning.model_weights import ModelWeights


@dataclass(frozen=True, slots=True)
class StageLayers:
    """The layers of one pipeline stage.

    Attributes:
        layers: how many.
        indexed: those that have an indexer of their own.
        dense: those without experts.
        heads: embeddings and heads that the stage has: 0, 1, or 2 of a pipeline of one stage.
        is_last: it has the head, which is a matrix product; the embedding is a look-up.
        page_bytes: what a page of tokens takes in all its pools.
        fixed_bytes: what its pools take whatever the tokens.
    """

    layers: int
    indexed: int
    dense: int
    heads: int
    is_last: bool
    page_bytes: int
    fixed_bytes: int

    def weight_bytes(self, weights: ModelWeights, world: World) -> int:
        """What one rank has: attention split by heads over `attention_tp`, all else after it over the whole stage."""
        attention = weights.attention_whole + -(-weights.attention_by_heads // world.attention_tp)
        experts = (self.layers - self.dense) * (weights.experts * weights.expert + weights.always)
        split = experts + self.dense * weights.dense_mlp + self.heads * weights.head_bytes
        return self.layers * attention + self.indexed * weights.indexer + -(-split // world.stage_ranks)

    def tokens(self, memory_bytes: int, page_tokens: int) -> int:
        """Tokens of context, whole pages, whose pools fit: 0 if not one page does."""
        return max(0, memory_bytes - self.fixed_bytes) // self.page_bytes * page_tokens

    def pool_bytes(self, tokens: int, page_tokens: int) -> int:
        """What the pools of so many tokens take."""
        return self.fixed_bytes + tokens // page_tokens * self.page_bytes


def stages_of(
    geometry: ModelGeometry, weights: ModelWeights, pp: int, options: PlanOptions
) -> tuple[tuple[StageLayers, ...], int]:
    """The stages of an even split, each kind once, and the tokens of a page. Pools are those of `plan_pools`.

    Raises:
        PlanError, LayoutError: an option is wrong, or does not fit the model.
    """
    choices = choices_of(geometry, World(pp=pp), 1, options)

    def made() -> Iterator[StageLayers]:
        slices = layer_slices(geometry.layers, pp)
        for stage, it in zip(choices.stages, slices, strict=True):
            one, two = (choices.bytes(stage, pages * choices.page_tokens) for pages in (1, 2))
            first, last = it.start == 0, it.end == it.total
            yield StageLayers(
                layers=it.local,
                indexed=sum(geometry.own_indexers[layer] for layer in it.layers),
                dense=sum(weights.dense[layer] for layer in it.layers),
                heads=first + last,
                is_last=last,
                page_bytes=two - one,
                fixed_bytes=2 * one - two,
            )

    return tuple(dict.fromkeys(made())), choices.page_tokens
