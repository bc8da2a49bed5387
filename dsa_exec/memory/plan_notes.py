"""What was assumed for a plan, and what its reader should know, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from dsa_exec.memory.plan_choices import Choices


def notes_of(choices: Choices, fits: Sequence[int], tokens: int) -> tuple[str, ...]:
    """The notes of a plan.

    Args:
        choices: what was asked for.
        fits: for each stage, the tokens that fit there.
        tokens: the tokens that all hold.
    """
    notes = [*choices.geometry.notes, *_of_requests(choices, tokens), *_of_draft_layers(choices)]
    held = tokens * choices.world.cp
    if held < choices.context_tokens:
        told = f"A request of the longest context, {choices.context_tokens} tokens, does not fit"
        notes.append(f"{told}: only {held} tokens do.")
    if max(fits) > tokens:
        stage = fits.index(tokens)
        more = max(fits) - tokens
        told = f"Stage {stage} has least room: others could hold up to {more} tokens more"
        notes.append(f"{told}, which they leave free.")
    return tuple(notes)


def _of_requests(choices: Choices, tokens: int) -> list[str]:
    given, dp, requests = choices.options.max_running_requests, choices.world.dp, choices.requests(tokens)
    if given is not None:
        lost = given % dp
        told = f"Of max_running_requests={given}, {lost} cannot run: each of dp={dp} groups takes {requests}."
        return [told] if lost else []
    if requests is None or not any(ratio == 128 for ratio in choices.geometry.compress_ratios):
        return []
    told = f"max_running_requests is not known: {requests} requests are estimated for the state of ratio-128 layers"
    return [f"{told}, which takes memory for each. Give the number that the engine is started with."]


def _of_draft_layers(choices: Choices) -> list[str]:
    geometry, draft_layers = choices.geometry, choices.draft_layers
    if not choices.options.speculative:
        return []
    notes = []
    if choices.options.draft_layers is None and not geometry.draft_layers_told:
        notes.append(f"{geometry.origin} does not say num_nextn_predict_layers: one draft layer is assumed.")
    if draft_layers == 0:
        notes.append("Speculation is planned without caches for draft layers.")
        return notes
    if choices.world.pp > 1:
        first, last = geometry.layers, geometry.layers + draft_layers - 1
        named = f"layer {first}" if draft_layers == 1 else f"layers {first} to {last}"
        notes.append(f"The last stage has what is drafted with, as {named}.")
    told = len(geometry.draft_compress_ratios)
    if geometry.compressed and draft_layers > told:
        notes.append(f"{draft_layers - told} draft layer(s) that compress_ratios does not tell count as window only.")
    return notes
