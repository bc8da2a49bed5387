"""A record as tables in Markdown."""

from __future__ import annotations

from benchmarks.transformers.record import AgreementRow, ContextRow, Pass, TransformersRecord

GIB, MIB = 2**30, 2**20
BEGIN, END = "<!-- benchmarks transformers: begin -->", "<!-- benchmarks transformers: end -->"
"""What is between these in a page is the tables, and is written anew."""


def written(text: str | None, record: TransformersRecord) -> str:
    """A file with a record's tables.

    Args:
        text: what it holds now; None if it is new.
        record: what was measured.

    Returns:
        The same with other tables between its marks; where there are none, the record and nothing else.
    """
    if text is None or BEGIN not in text or END not in text:
        return page(record)
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n\n{_about(record)}\n\n{_tables(record)}\n\n{END}{rest.split(END, 1)[1]}"


def page(record: TransformersRecord) -> str:
    """The whole record."""
    return f"# transformers\n\n{_about(record)}\n\n{_tables(record)}\n"


def _tables(record: TransformersRecord) -> str:
    return "\n".join([*context_table(record), "", *agreement_table(record)])


def _about(record: TransformersRecord) -> str:
    sizes = record.geometry
    return (
        f"{record.device}, {record.date}, torch {record.torch}, triton {record.triton}, transformers "
        f"{record.transformers}, {record.dtype}. Memory and time: a model of {sizes['num_hidden_layers']} layers with "
        f"{sizes['num_attention_heads']} heads, {sizes['index_n_heads']} index heads and {sizes['index_topk']} "
        f"selected tokens, one request; medians of {record.repeats} prefills and {record.steps} steps. Memory is what "
        "a pass takes beyond weights and, in decode, the cache. In parentheses: over a cache of random numbers, since "
        "the prefill did not run."
    )


def context_table(record: TransformersRecord) -> list[str]:
    """Memory and time."""
    lines = [
        "| tokens | | prefill, ms | its memory | decode, ms a token | its memory | cache, bytes a token |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    lines += [_context_line(row) for row in record.contexts]
    failures = [(row, what, it.failure) for row in record.contexts for what, it in _passes(row) if it.failure]
    if failures:
        lines += ["", "Did not run:", ""]
    for row, what, failure in failures:
        scores = f"; one tensor of scores would be {record.score_bytes(row.tokens) / GIB:.0f} GiB"
        why = f"{failure}{scores if what == 'prefill' else ''}"
        lines.append(f"- {row.way}, {what} of {row.tokens} tokens: {why}")
    return lines


def agreement_table(record: TransformersRecord) -> list[str]:
    """The tiny model's texts."""
    names = "same tokens", "the same throughout", "first to differ", "selected in common", "largest logit difference"
    head = f"| the tiny model against plain transformers | {' | '.join(names)} |"
    lines = [head, f"|---|{'---:|' * len(names)}"]
    return [*lines, *map(_agreement_line, record.agreement)]


def _context_line(row: ContextRow) -> str:
    a_token = "" if row.cache_bytes is None else f"{row.cache_bytes / row.tokens:.0f}"
    decode = _milliseconds(row.decode)
    cells = [
        str(row.tokens),
        row.way,
        _milliseconds(row.prefill),
        _memory(row.prefill),
        f"({decode})" if row.is_filled else decode,
        _memory(row.decode),
        a_token,
    ]
    return f"| {' | '.join(cells)} |"


def _passes(row: ContextRow) -> tuple[tuple[str, Pass], tuple[str, Pass]]:
    return ("prefill", row.prefill), ("decode", row.decode)


def _milliseconds(it: Pass) -> str:
    return "-" if it.milliseconds is None else f"{it.milliseconds:.1f}"


def _memory(it: Pass) -> str:
    if it.failure is not None:
        return "does not fit"
    if it.extra_bytes is None:
        return ""
    return f"{it.extra_bytes / GIB:.2f} GiB" if it.extra_bytes >= GIB else f"{it.extra_bytes / MIB:.1f} MiB"


def _agreement_line(row: AgreementRow) -> str:
    differ = [it for it in row.first_divergences if it is not None]
    common = "" if row.selected_in_common is None else f"{row.selected_in_common:.2%}"
    cells = [
        row.way,
        f"{row.same:.2%} of {row.prompts * row.new_tokens}",
        f"{row.prompts - len(differ)} of {row.prompts}",
        f"token {min(differ)}" if differ else "none",
        common,
        f"{row.largest_logit_difference:.2g}",
    ]
    return f"| {' | '.join(cells)} |"
