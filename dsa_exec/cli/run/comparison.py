"""The same prompt on plain transformers, and how far ours agrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsa_exec.cli.report import AgreementWithPlain
from dsa_exec.cli.run.stages import Stages
from dsa_exec.integrations.transformers import agreement as judge
from dsa_exec.integrations.transformers.continuation import Continuation, Generation
from dsa_exec.integrations.transformers.sampling import Sampling


def compared(
    model: Any,
    ids: Sequence[int],
    ours: Continuation,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    request: int,
    stages: Stages,
    on_token: Callable[[], None],
) -> AgreementWithPlain:
    """Run plain transformers on a prompt that ours has continued.

    Greedily, it continues the prompt by itself, and both have read the same up to the first token that differs. Where
    tokens are drawn, one early difference would make two texts that have nothing to do with each other: there it reads
    our tokens, and draws at each step with the noise that ours drew with.

    Args:
        model: not attached to.
        ids: the prompt.
        ours: what ours made of it: at least one token.
        max_new_tokens: how many tokens were wanted.
        sampling: how they were chosen.
        request: the prompt's number, for its draws.
        stages: where to count the time.
        on_token: called after each token.
    """
    forced = not sampling.is_greedy
    plain = Generation(
        model,
        [ids],
        [max_new_tokens],
        choose=[sampling.chooser(request)],
        forced=[ours.tokens] if forced else None,
    )
    plain.run(lambda _: on_token())
    theirs = plain[0]
    stages.add("plain transformers, prefill", theirs.prefill_s, len(ids))
    stages.add("plain transformers, decode", theirs.decode_s, len(theirs.tokens) - 1)
    with stages.stage("compare"):
        found = judge.agreement(theirs, ours, forced=forced)
    return AgreementWithPlain(
        forced=forced,
        same_tokens=found.first_divergence is None,
        tokens_in_common=sum(left == right for left, right in zip(theirs.tokens, ours.tokens, strict=False)),
        plain_tokens=theirs.tokens,
        first_divergence=found.first_divergence,
        selected_in_common=found.selected_in_common,
        largest_logit_difference=found.largest_logit_difference,
    )
