"""The equation that leads from memory to tokens, line by line, with the numbers in it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from dsa_exec.memory.plan_choices import Choices, Stage
from dsa_exec.memory.pool import Pool
from dsa_exec.memory.pool_plan import Term
from dsa_exec.memory.pools_v4_state import LEAST_REQUESTS, MOST_REQUESTS, REQUESTS_FOR_EACH_CONTEXT

_SHARES = {
    "mla_kv": "kv * layers",
    "index_k": "index * layers with an indexer",
    "swa_kv": "r * kv * layers",
    "c4_kv": "kv / 4 * ratio-4 layers",
    "c128_kv": "kv / 128 * ratio-128 layers",
    "c4_index_k": "index / 4 * ratio-4 layers",
    "c4_state": "r * ring / window * state * ratio-4 layers",
    "c4_index_state": "r * ring / window * state * ratio-4 layers",
}
"""How each pool's bytes for a token of context come about, in names."""


def terms_of(choices: Choices, stage: Stage, pools: Sequence[Pool], fits_tokens: int, tokens: int) -> tuple[Term, ...]:
    """The equation of a rank.

    Args:
        choices: what was asked for.
        stage: the rank's stage.
        pools: its pools.
        fits_tokens: tokens that fit there.
        tokens: tokens that all ranks hold.
    """
    growing = [pool for pool in pools if pool.entries_per_token]
    each = [_share(choices, pool) for pool in growing]
    cell = _sum("bytes_per_token", [(pool.name, term.value) for pool, term in zip(growing, each, strict=True)])
    lines = [*each, cell]
    fixed = [pool for pool in pools if not pool.entries_per_token]
    for pool in fixed:
        lines += [*_requests(choices, tokens), _state(pool)]
    lines += _extra(growing)
    lines += _tokens(choices, stage, cell.value, sum(pool.bytes for pool in fixed), fits_tokens, tokens)
    return (*lines, *_result(pools, stage.memory_bytes))


def _share(choices: Choices, pool: Pool) -> Term:
    numbers = [_text(pool.entries_per_token), str(pool.entry_bytes), str(len(pool.layers))]
    if pool.name in ("c4_state", "c4_index_state"):
        window = choices.geometry.window_tokens
        numbers[0] = f"{_text(choices.options.swa_ratio)} * {pool.page_tokens} / {window}"
    elif pool.entries_per_token.numerator == 1 and pool.entries_per_token.denominator in (4, 128):
        numbers = [f"{pool.entry_bytes} / {pool.entries_per_token.denominator}", str(len(pool.layers))]
    if pool.entries_per_token == 1 and pool.name != "swa_kv":
        numbers = numbers[1:]
    return Term(pool.name, _SHARES[pool.name], " * ".join(numbers), pool.exact_bytes_per_token, "bytes/token")


def _requests(choices: Choices, tokens: int) -> list[Term]:
    requests, dp, cp = choices.requests(tokens), choices.world.dp, choices.world.cp
    assert requests is not None  # there is a pool for them
    given = choices.options.max_running_requests
    if given is not None:
        formula, numbers = "floor(max_running_requests / dp)", f"floor({given} / {dp})"
        return [Term("requests", formula, numbers, Fraction(requests), "requests")]
    held, limits = tokens * cp, f"{LEAST_REQUESTS}, {MOST_REQUESTS}"
    formula = f"min(clamp(floor(tokens * {REQUESTS_FOR_EACH_CONTEXT} / context), {limits}), tokens / 2)"
    clamped = f"clamp(floor({held} * {REQUESTS_FOR_EACH_CONTEXT} / {choices.context_tokens}), {limits})"
    return [Term("requests (estimated)", formula, f"min({clamped}, {held} / 2)", Fraction(requests), "requests")]


def _state(pool: Pool) -> Term:
    """State that grows with requests: its rows already have those of the extra pages."""
    rows = pool.pages * pool.page_tokens
    numbers = f"{rows} * {pool.entry_bytes} * {len(pool.layers)}"
    return Term(pool.name, "rows * state * ratio-128 layers", numbers, Fraction(pool.bytes), "bytes")


def _extra(pools: Sequence[Pool]) -> list[Term]:
    """What is not in the published formula: an extra page of every pool, and padding of the others."""
    extra, padding = sum(pool.extra_bytes for pool in pools), sum(pool.padding_bytes for pool in pools)
    numbers = " + ".join(f"{pool.extra_pages} * {pool.page_bytes} * {len(pool.layers)}" for pool in pools)
    formula = "sum over pools of extra pages * page * layers"
    lines = [Term("extra pages", formula, numbers, Fraction(extra), "bytes")]
    if padding:
        numbers = " + ".join(
            f"{pool.pages} * {pool.page_bytes - pool.page_tokens * pool.entry_bytes} * {len(pool.layers)}"
            for pool in pools
            if pool.padding_bytes
        )
        formula = "sum over pools of pages * padding of a page * layers"
        lines.append(Term("padding", formula, numbers, Fraction(padding), "bytes"))
    return lines


def _tokens(
    choices: Choices, stage: Stage, cell: Fraction, fixed_bytes: int, fits_tokens: int, tokens: int
) -> list[Term]:
    page, memory = choices.page_tokens, stage.memory_bytes
    published = int(max(memory - fixed_bytes, 0) / cell) // page * page
    lines = [
        Term(
            "tokens without padding and extra pages",
            "floor((memory - state) / bytes_per_token / page) * page",
            f"floor(({memory} - {fixed_bytes}) / {_text(cell)} / {page}) * {page}",
            Fraction(published),
            "tokens",
        ),
    ]
    limit = choices.options.max_tokens
    what = "largest multiple of page whose pools fit"
    numbers = f"largest multiple of {page} whose pools take at most {memory} bytes"
    if limit is not None:
        what, numbers = f"{what}, at most max tokens", f"{numbers}, at most {limit}"
    lines.append(Term("tokens that fit", what, numbers, Fraction(fits_tokens), "tokens"))
    if choices.world.pp > 1:
        numbers = f"least of {choices.world.pp} stages"
        lines.append(Term("tokens", "least of all stages", numbers, Fraction(tokens), "tokens"))
    elif tokens < fits_tokens:  # ranks were given memory each
        numbers = f"least of {choices.world.ranks} ranks"
        lines.append(Term("tokens", "least of all ranks", numbers, Fraction(tokens), "tokens"))
    return lines


def _result(pools: Sequence[Pool], memory_bytes: int) -> list[Term]:
    total = _sum("bytes", [(pool.name, Fraction(pool.bytes)) for pool in pools])
    whole = Term(total.name, "sum over pools of pages * page * layers", total.numbers, total.value, "bytes")
    free = Fraction(memory_bytes) - total.value
    return [whole, Term("free", "memory - bytes", f"{memory_bytes} - {_text(total.value)}", free, "bytes")]


def _sum(name: str, parts: Sequence[tuple[str, Fraction]]) -> Term:
    names, numbers = " + ".join(part for part, _ in parts), " + ".join(_text(value) for _, value in parts)
    return Term(name, names, numbers, sum((value for _, value in parts), Fraction(0)), "bytes/token")


def _text(number: Fraction) -> str:
    """A number as people write it: whole, a short decimal, or a fraction."""
    if number.denominator == 1:
        return str(number.numerator)
    if not 10**4 % number.denominator:
        return f"{float(number):.4f}".rstrip("0")
    return f"{float(number):.2f}"
