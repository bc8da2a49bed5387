"""The report of `dsa plan` as text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console

from dsa_config.tools.printing import console
from dsa_exec.cli.plan.report import Equation, Fit, LogitsChunks, PlanReport, RankGroup
from dsa_exec.cli.plan.sizes import count_words
from dsa_exec.cli.show_report import count, printable, size, table


def show(report: PlanReport, *, explain: bool = False) -> None:
    """Print the model, the memory, every rank's pools, what fits and what the logits take; and the equation."""
    out = console()
    for line in (*_model(report), *_memory(report), *_tokens(report)):
        out.print(printable(line), soft_wrap=True)
    out.print()
    titles = ("ranks", "pool", "bytes", "bytes/token", "why")
    out.print(table(titles, _printable(row for group in report.ranks for row in _pools(group, report.tokens))))
    out.print()
    out.print(table(("pool", "layers", "bytes/token", "holds"), _kinds(report)))
    out.print()
    _section(out, "requests at once", table(("context", "requests", "limit"), map(_fit, report.fits)))
    _logits(out, report)
    if explain:
        for _, alike in itertools.groupby(report.equations, key=lambda it: it.terms):
            _equation(out, list(alike))
    for note in report.notes:
        out.print(f"note: {printable(note)}", soft_wrap=True)


def _section(out: Console, title: str, content: object) -> None:
    out.print(title, soft_wrap=True)
    out.print(content)
    out.print()


def _printable(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    return (tuple(map(printable, row)) for row in rows)


def _model(report: PlanReport) -> Iterator[str]:
    it = report.model
    ratios = ", ".join(f"{many} of ratio {ratio}" for ratio, many in it.compress_ratios.items())
    layers = f"{count(it.layers, 'layer')}" + (f" ({ratios})" if ratios else f", {it.index_layers} with an indexer")
    yield f"{it.file}: {it.model_type}, {layers}, contexts to {count_words(it.max_context_tokens)} tokens"


def _memory(report: PlanReport) -> Iterator[str]:
    it = report.memory
    found = {given.name: given for given in report.inputs}
    fraction, weights = found["mem_fraction_static"], found["weights"]
    yield (
        f"memory of a rank: {size(it.gpu_bytes)} x {fraction.value} = {size(it.static_bytes)} for weights and pools "
        f"(mem_fraction_static: {fraction.origin})"
    )
    yield f"  less {size(it.weights_bytes)} of weights ({weights.origin}) = {size(it.pools_bytes)} for pools"
    yield f"  {size(it.dynamic_bytes)} are left for all else, indexer logits among it"


def _tokens(report: PlanReport) -> Iterator[str]:
    limit = next(group.name for group in report.ranks if group.is_limit)
    pages = count(report.tokens // report.page_tokens, "page")
    limited = f", as many as fit on {limit}" if len(report.ranks) > 1 else ""
    yield f"tokens: {report.tokens} on every rank ({pages} of {report.page_tokens}){limited}"
    if report.tokens_in_all != report.tokens:
        yield f"  {report.tokens_per_group} for each dp group, {report.tokens_in_all} in all"
    yield f"  {count(report.bytes_per_token, 'byte')} a token in all layers"


def _pools(group: RankGroup, tokens: int) -> Iterator[tuple[str, ...]]:
    first, last = group.layers
    drafts = f" and {count(group.draft_layers, 'draft layer')}" if group.draft_layers else ""
    name = f"{group.name}: layers [{first},{last}){drafts}"
    for pool in group.pools:
        yield name, pool.name, size(pool.bytes), str(pool.bytes_per_token or "-"), pool.why
        name = ""
    used = f"{group.pools_bytes} bytes; {size(group.free_bytes)} left over"
    others = f", room for {group.fits_tokens} tokens" if group.fits_tokens > tokens else ""
    yield "", "together", size(group.pools_bytes), str(group.bytes_per_token), used + others


def _kinds(report: PlanReport) -> Iterator[tuple[str, ...]]:
    for it in report.pools:
        yield it.name, str(it.layers), str(it.bytes_per_token or "-"), it.holds


def _fit(it: Fit) -> tuple[str, ...]:
    return count_words(it.context_tokens), str(it.requests), it.limit


def _logits(out: Console, report: PlanReport) -> None:
    budget = report.logits_budget
    title = f"indexer logits: chunks of rows, and their peak; budget {size(budget.bytes)} ({budget.why})"
    if budget.most_logits_bytes < budget.bytes:
        title += f", {size(budget.most_logits_bytes)} of it for logits"
    rows = sorted({it.rows for it in report.logits})
    cells = {(it.context_tokens, it.rows): it for it in report.logits}
    contexts = sorted({it.context_tokens for it in report.logits})
    if not cells:
        if report.model.index_layers:
            out.print("indexer logits: every prefill has more rows than the longest context (--prefill)")
            out.print()
        return
    lines = ((count_words(context), *(_chunks(cells.get((context, size_))) for size_ in rows)) for context in contexts)
    _section(out, title, table(("context", *(f"{count_words(it)} rows" for it in rows)), lines))


def _chunks(it: LogitsChunks | None) -> str:
    if it is None:
        return "-"
    return f"{it.chunks}, {size(it.peak_bytes)}" + (" (over budget)" if it.is_over_budget else "")


def _equation(out: Console, alike: Sequence[Equation]) -> None:
    """Of neighbouring stages that have the same."""
    last = f" to {alike[-1].ranks}" if len(alike) > 1 else ""
    out.print(f"equation of {alike[0].ranks}{last}")
    for term in alike[0].terms:
        parts = dict.fromkeys((term.name, term.formula, term.numbers, f"{_value(term.value)} {term.unit}"))
        out.print(f"  {' = '.join(parts)}", soft_wrap=True)
    out.print()


def _value(exact: str) -> str:
    numerator, _, denominator = exact.partition("/")
    return f"{int(numerator) / int(denominator):.2f}" if denominator else numerator
