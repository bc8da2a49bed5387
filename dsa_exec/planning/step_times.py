"""What a step takes in one pipeline stage: measured kernels, matrix products by roofline, and communication.

Decode: keys of a request are split over cp ranks, each selects from its own, and candidates and outputs are merged.
Prefill: rows of a chunk are dealt to cp ranks, which gather each other's keys. Indexer rows are done by every rank of a
tensor-parallel group, or dealt out and the selected indices gathered, whatever takes less.
"""

from __future__ import annotations

from typing import NamedTuple

from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_world import World
from dsa_exec.planning.kernel_terms import Work
from dsa_exec.planning.kernel_times import KernelTimes
from dsa_exec.planning.machine import Machine
from dsa_exec.planning.model_weights import ModelWeights
from dsa_exec.planning.stages import StageLayers

KEY_BYTES = 132
"""An index key and its scale."""

TOKEN_BYTES = 656
"""A cached token."""

INDEX_BYTES, CANDIDATE_BYTES = 4, 8
"""A selected index; a candidate is an index and its score."""

DISPATCH_BYTES, ACTIVATION_BYTES = 1, 2
"""A channel of a token on its way to an expert, and elsewhere between ranks."""

LSE_BYTES = 16
"""What the log of a row's sum of exponentials takes beside its output: `attention_in_group` sends whole such units."""


def output_bytes(latent: int) -> int:
    """What `attention_in_group` sends of a row and head, of so many channels: the bf16 output and its lse."""
    return -(-latent * ACTIVATION_BYTES // LSE_BYTES) * LSE_BYTES + LSE_BYTES


class StageTime(NamedTuple):
    """Microseconds of a step in one stage, by what takes them.

    Attributes:
        indexer: its logits and top-k, and the merge of candidates.
        attention: over the selected keys.
        products: projections, experts, and the head.
        communication: all of it.
        other: what a layer takes besides.
    """

    indexer: float
    attention: float
    products: float
    communication: float
    other: float

    @property
    def us(self) -> float:
        """All together: nothing is assumed to overlap."""
        return sum(self)


class LayerTime(NamedTuple):
    """Microseconds of a layer that follow from its attention; the first two only where it has an indexer.

    Attributes:
        indexer: logits, top-k and merge.
        gathered: communication of the indexer.
        attention: over the selected keys.
        merged: communication of attention.
    """

    indexer: float
    gathered: float
    attention: float
    merged: float


class Tokens(NamedTuple):
    """The tokens of a step.

    Attributes:
        group: of one dp group.
        own: those of them that a rank has.
        holders: ranks that have the same ones.
        logits: those of a group whose logits are wanted.
    """

    group: int
    own: int
    holders: int
    logits: int


class Model(NamedTuple):
    """What a step is made of: a model, kernels and a machine."""

    geometry: ModelGeometry
    weights: ModelWeights
    kernels: KernelTimes
    machine: Machine

    def decode(self, world: World, stage: StageLayers, requests: int, context: int) -> StageTime:
        """A step of so many requests in each dp group, one token each, with so many tokens of context."""
        geometry, machine, cp, tp = self.geometry, self.machine, world.cp, world.attention_tp
        selected, heads = min(context, geometry.index_topk), -(-self.weights.heads // tp)
        index, gathered = self._index("index_select decode", tp, requests, -(-context // cp), selected)
        attention, merged = self.kernels.us("sparse_mla_decode", Work(requests, selected / cp, heads)), 0.0
        if cp > 1:
            gathered += machine.gather_us(cp, cp * requests * selected * CANDIDATE_BYTES, cp * tp)
            index += self.kernels.us("topk", Work(requests, cp * selected, 0))
            outputs = requests * heads * output_bytes(geometry.latent_dim)
            merged = machine.gather_us(cp, cp * outputs, cp * tp)
        tokens = Tokens(requests, requests, cp * tp, requests)
        return self._stage(world, stage, tokens, LayerTime(index, gathered, attention, merged))

    def prefill(self, world: World, stage: StageLayers, rows: int, keys: int) -> StageTime:
        """A chunk of so many tokens of one prompt in each dp group, the last of `keys` tokens."""
        geometry, machine, cp, tp = self.geometry, self.machine, world.cp, world.attention_tp
        own, selected, heads = -(-rows // cp), min(keys, geometry.index_topk), -(-self.weights.heads // tp)
        index, gathered = self._index("index_select prefill", tp, own, _seen(rows, own, keys), selected)
        gathered += machine.gather_us(cp, keys * KEY_BYTES, cp * tp)
        attention = self.kernels.us("sparse_mla_prefill", Work(own, selected, heads))
        merged = machine.gather_us(cp, keys * TOKEN_BYTES, cp * tp)
        tokens = Tokens(rows, own, tp, 1)
        return self._stage(world, stage, tokens, LayerTime(index, gathered, attention, merged))

    def _index(self, op: str, tp: int, rows: int, keys: float, selected: int) -> tuple[float, float]:
        """The indexer of a layer on one rank, and what it gathers, if that is faster than every rank doing it all."""
        heads = self.geometry.index_heads
        alone = self.kernels.us(op, Work(rows, keys, heads))
        if tp == 1:
            return alone, 0.0
        share = -(-rows // tp)
        dealt = self.kernels.us(op, Work(share, _seen(rows, share, keys) if "prefill" in op else keys, heads))
        gathered = self.machine.gather_us(tp, rows * selected * INDEX_BYTES, tp)
        return (dealt, gathered) if dealt + gathered < alone else (alone, 0.0)

    def _stage(self, world: World, stage: StageLayers, tokens: Tokens, layer: LayerTime) -> StageTime:
        machine, tp = self.machine, world.attention_tp
        sent = tokens.own * self.weights.hidden * ACTIVATION_BYTES
        every = machine.reduce_us(tp, sent, tp) + layer.merged + self._exchanged(world, tokens)
        communication = stage.layers * every + stage.indexed * layer.gathered
        if world.pp > 1:
            span = world.ranks if world.ranks <= machine.node_gpus else machine.node_gpus + 1
            communication += machine.send_us(sent / tokens.holders, span)
        return StageTime(
            indexer=stage.indexed * layer.indexer,
            attention=stage.layers * layer.attention,
            products=self._products(world, stage, tokens),
            communication=communication,
            other=stage.layers * machine.layer_us,
        )

    def _products(self, world: World, stage: StageLayers, tokens: Tokens) -> float:
        """Projections of a rank's own tokens; MLPs and the head for those of all groups, evenly over the stage."""
        weights, product, ranks = self.weights, self.machine.product_us, world.stage_ranks
        attention = weights.attention_whole + weights.attention_by_heads / world.attention_tp
        us = stage.layers * product(attention, 2 * tokens.own * attention)
        us += stage.indexed * product(weights.indexer, 2 * tokens.own * weights.indexer)
        every = tokens.group * world.dp
        us += stage.dense * product(weights.dense_mlp / ranks, 2 * every * weights.dense_mlp / ranks)
        # Experts that no token of the step has chosen are not read.
        read = 1 - (1 - weights.experts_a_token / weights.experts) ** every
        routed, chosen = weights.experts * weights.expert, weights.experts_a_token * weights.expert
        experts = product((read * routed + weights.always) / ranks, 2 * every * (chosen + weights.always) / ranks)
        us += (stage.layers - stage.dense) * experts
        if stage.is_last:
            head = weights.head_bytes / ranks
            us += product(head, 2 * tokens.logits * world.dp * head)  # bf16: half as fast, and half as many weights
        return us

    def _exchanged(self, world: World, tokens: Tokens) -> float:
        """Tokens on their way to experts and back: a sum over ranks that have the same tokens, else sent to each."""
        hidden, machine, tp, ranks = self.weights.hidden, self.machine, world.attention_tp, world.stage_ranks
        all_own = tokens.own * hidden * ACTIVATION_BYTES
        if tp == ranks:
            return machine.reduce_us(tp, all_own, tp)
        copies = tokens.own / tokens.holders * self.weights.experts_a_token * hidden
        there = machine.scatter_us(ranks, copies * DISPATCH_BYTES, ranks)
        back = machine.scatter_us(ranks, copies * ACTIVATION_BYTES, ranks)
        return there + back + machine.gather_us(tokens.holders, all_own, tokens.holders)


def _seen(rows: int, own: int, keys: float) -> float:
    """Keys that the last of a rank's rows sees, if they are dealt from everywhere in a chunk: on average the same."""
    return keys - (rows - own) / 2
