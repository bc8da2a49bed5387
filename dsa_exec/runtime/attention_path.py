"""How a batch attends: densely, to selected tokens gathered in 16 bits, or to selected tokens in the FP8 cache.

Decided once for a batch and kept in its metadata: the decision is frozen, and no shared object remembers the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from dsa_config import settings
from dsa_config.declarations.backends import AUTO
from dsa_exec.core.errors import UnsupportedPath
from dsa_exec.core.hardware import Capabilities
from dsa_exec.layouts.mla_kv import MlaLayout

Phase = Literal["prefill", "decode", "target_verify", "draft_extend"]
"""What a batch does. One that mixes prefill with decode is a prefill in which some requests have one new token."""

Way = Literal["dense", "sparse_bf16", "fp8_kv"]


@dataclass(frozen=True, slots=True)
class AttentionSettings:
    """The settings that decide, read once for a batch.

    Attributes:
        prefill_attention: the setting of this name.
        decode_attention: likewise; it also counts for the speculative phases.
        dense_threshold_tokens: prefill_dense_attn_kv_len_threshold.
    """

    prefill_attention: str
    decode_attention: str
    dense_threshold_tokens: int

    @classmethod
    def now(cls) -> AttentionSettings:
        """As they are now."""
        return cls(
            prefill_attention=settings.prefill_attention,
            decode_attention=settings.decode_attention,
            dense_threshold_tokens=settings.prefill_dense_attn_kv_len_threshold,
        )

    def choice(self, phase: Phase) -> tuple[str, str]:
        """The setting that counts in a phase, and its value."""
        name = "prefill_attention" if phase == "prefill" else "decode_attention"
        return name, getattr(self, name)


@dataclass(frozen=True, slots=True)
class AttentionPath:
    """How a batch attends.

    Attributes:
        way: `dense`: each row attends to all tokens that it sees. `sparse_bf16`: to those selected, in the model's
            dtype. `fp8_kv`: to those selected, as an FP8 cache holds them.
        phase: what the batch does.
        format: of the MLA cache that it was decided for.
        why: the reason, in words.
        multiprocessors: of the device. Over a cache of the model's dtype, fewer rows of decode go to the op that splits
            what a row selects over several; 0: none do.

    Raises:
        UnsupportedPath: there is no such way in the phase or over the format.
    """

    way: Way
    phase: Phase
    format: Literal["fp8", "model"]
    why: str
    multiprocessors: int = 0

    def __post_init__(self) -> None:
        sentence = _refuses_format(self.way, self.format)
        if self.way == "dense" and self.phase != "prefill":
            sentence = _selects(self.phase)
        if sentence is not None:
            raise UnsupportedPath([("way", self.way, sentence)])

    @property
    def selects(self) -> bool:
        """Whether tokens are selected: otherwise scores and top-k are left out, and index keys are only stored."""
        return self.way != "dense"


def attention_path(
    phase: Phase,
    layout: MlaLayout,
    hw: Capabilities,
    chosen: AttentionSettings,
    *,
    index_topk: int,
    longest_tokens: int | None = None,
) -> AttentionPath:
    """Decide how a batch attends. Depends on nothing but its arguments.

    Args:
        phase: what the batch does.
        layout: of the MLA caches.
        hw: the device.
        chosen: the settings: `AttentionSettings.now()`.
        index_topk: how many tokens the model selects for a row.
        longest_tokens: tokens of the longest request, the new ones included; None if only the device knows.

    Raises:
        UnsupportedPath: the way that a setting names cannot be taken; no other is taken instead.
    """
    setting, choice = chosen.choice(phase)
    no_dense = _refuses_dense(phase, chosen.dense_threshold_tokens, index_topk, longest_tokens)
    if choice != AUTO:
        if sentence := no_dense if choice == "dense" else _refuses_format(choice, layout.format):
            raise UnsupportedPath([(setting, choice, sentence)])
        way, why = cast("Way", choice), f"{setting} names it"
        return AttentionPath(way, phase, layout.format, why, hw.multiprocessors)
    if no_dense is None:
        reason = f"auto: all of the longest request's {longest_tokens} tokens are attended to, none are selected"
        return AttentionPath("dense", phase, layout.format, reason, hw.multiprocessors)
    way, reason = _sparse(phase, layout, hw)
    told = f"; not dense: {no_dense}" if phase == "prefill" else ""
    return AttentionPath(way, phase, layout.format, f"auto: {reason}{told}", hw.multiprocessors)


def validate_paths(layout: MlaLayout, chosen: AttentionSettings) -> None:
    """Check once, at start, that every phase has a way over a cache: what holds for each batch, whatever its length.

    Raises:
        UnsupportedPath: a setting names a way that no batch can take, or both do.
    """
    refusals = []
    phases: tuple[Phase, ...] = ("prefill", "decode")
    for phase in phases:
        setting, choice = chosen.choice(phase)
        sentence = _refuses_format(choice, layout.format)
        if choice == "dense" and chosen.dense_threshold_tokens == 0:
            sentence = _TURNED_OFF
        if sentence is not None:
            refusals.append((setting, choice, sentence))
    if refusals:
        raise UnsupportedPath(refusals)


_TURNED_OFF = "prefill_dense_attn_kv_len_threshold=0 turns dense attention off"


def _selects(phase: Phase) -> str:
    return f"{phase} attends to selected tokens"


def _refuses_format(choice: str, format: str) -> str | None:
    if choice == "fp8_kv" and format != "fp8":
        wanted = "fp8_kv attends to a cache of format fp8, and nothing is quantised on the way"
        return f"the MLA cache has format {format}: {wanted} (kv_format=fp8 allocates one)"
    return None


def _refuses_dense(phase: Phase, threshold: int, index_topk: int, longest: int | None) -> str | None:
    """Why a batch cannot attend densely. Beyond `index_topk` tokens that would be another model."""
    if phase != "prefill":
        return _selects(phase)
    if threshold == 0:
        return _TURNED_OFF
    if longest is None:
        return "the longest request's length is not known on the host"
    if longest <= min(threshold, index_topk):
        return None
    limit = f"the {index_topk} that the model selects (index_topk)"
    if threshold < index_topk:
        limit = f"{threshold} (prefill_dense_attn_kv_len_threshold)"
    return f"the longest request has {longest} tokens, more than {limit}"


def _sparse(phase: Phase, layout: MlaLayout, hw: Capabilities) -> tuple[Way, str]:
    if layout.format != "fp8":
        return "sparse_bf16", f"the MLA cache has format {layout.format}"
    if phase != "prefill":
        return "fp8_kv", f"{phase} reads the FP8 cache as it is"
    if hw.arch == "sm90":
        return "fp8_kv", "on sm90 prefill reads the FP8 cache as it is"
    return "sparse_bf16", f"on {hw.arch} prefill gathers the FP8 cache in 16 bits"
