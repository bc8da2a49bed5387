"""The report of `dsa run` as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table

from dsa_exec.cli.report import AgreementWithPlain, CacheFormats, LogitsUse, RunReport, SamplingInUse, Stage


def show(report: RunReport, out: Console) -> None:
    """Print how a text came about, or several; the text itself was printed as it came."""
    for line in _what_ran(report):
        out.print(printable(line), soft_wrap=True)
    out.print()
    if report.settings:
        rows = ((it.name, str(it.value), it.origin) for it in report.settings)
        out.print(table(("setting", "value", "from"), rows))
    else:
        out.print("settings: all at their defaults")
    out.print()
    out.print(
        table(("op", "backend", "calls", "why"), ((it.op, it.backend, str(it.calls), it.why) for it in report.backends))
    )
    out.print()
    if report.logits is not None:
        out.print(_logits(report.logits), soft_wrap=True)
        out.print()
    out.print(table(("stage", "seconds", "tokens/s"), (_stage(it) for it in report.stages)))
    if report.agreement is not None:
        out.print()
        out.print(_agreement(report.agreement, report.new_tokens), soft_wrap=True)
    if report.alike is not None and report.compared is not None:
        out.print()
        words = f"{report.alike} of {count(report.compared, 'prompt')} with the same tokens"
        if not report.compared:
            words = "no prompt was compared"
        out.print(f"against plain transformers: {words}", soft_wrap=True)
    if (report.agreement is not None or report.compared) and (quantised := _quantised(report.caches)):
        out.print(quantised, soft_wrap=True)


def printable(text: str) -> str:
    """The text with control characters made visible, so that a model cannot steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def size(bytes_: int) -> str:
    """A number of bytes for people."""
    amount, unit = float(bytes_), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"


def count(number: int, what: str) -> str:
    """A number of things: `1 row`, `2 rows`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    """A table that breaks long cells and loses nothing of them."""
    made = Table(box=None, pad_edge=False)
    for title in titles:
        made.add_column(title, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def _stage(it: Stage) -> tuple[str, str, str]:
    return it.name, f"{it.seconds:.3f}", "" if it.tokens_per_s is None else f"{it.tokens_per_s:.1f}"


def _quantised(caches: CacheFormats) -> str:
    """Why a difference is to be expected; nothing where it is not."""
    held = [name for name, format in (("index keys", caches.index_k), ("KV", caches.kv)) if format == "fp8"]
    if not held:
        return ""
    return (
        f"The caches of {' and '.join(held)} are FP8 here, and plain transformers quantises nothing: "
        "some differences are due to that."
    )


def _logits(use: LogitsUse) -> str:
    limits = [f"{size(use.static_bytes)} as a share of total memory"]
    if use.live_bytes is not None:
        limits.append(f"{size(use.live_bytes)} as a share of free memory")
    if use.cap_bytes is not None:
        limits.append(f"{size(use.cap_bytes)} by mqa_logits_max_chunk_bytes")
    words = (
        f"logits: {count(use.rows, 'row')} of {size(use.row_bytes)} in {count(use.chunks, 'chunk')}, "
        f"budget {size(use.budget_bytes)} (least of {', '.join(limits)}); {count(use.calls, 'call')}; "
        f"up to {size(use.chunk_bytes)} at once, with all that is allocated beside the logits"
    )
    if use.is_too_small:
        words += f"\nThe budget is less than the {size(use.least_bytes)} of the smallest chunk, and was exceeded."
    if use.retries:
        words += f"\nMemory ran out {count(use.retries, 'time')}, and fewer rows were tried."
    return words


def _what_ran(report: RunReport) -> Iterator[str]:
    read, made = count(report.prompt_tokens, "token"), count(report.new_tokens, "new token")
    where = f"{report.model} on {report.device}, {report.dtype}"
    if report.text is not None:
        yield f"{where}: {made} after {read} from {report.prompt}"
    else:
        yield f"{where}: {made} after {read} of {count(report.prompts, 'prompt')} from {report.prompt}"
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items() if version is not None)
    each = "" if report.text is not None else " for each prompt that does not say it itself"
    yield f"{versions}; at most {count(report.max_new_tokens, 'new token')}{each}"
    if report.interrupted and report.text is None:
        yield f"interrupted: {report.finished} of {count(report.prompts, 'prompt')} finished"
    elif report.interrupted:
        yield "interrupted: " + ("while it was compared" if report.finished else "the text is not whole")
    if report.sampling is not None:
        yield _sampling(report.sampling)
    for note in report.notes:
        yield f"note: {note}"


def _sampling(used: SamplingInUse) -> str:
    parts = [f"temperature {used.temperature:g}"]
    if used.top_k is not None:
        parts.append(f"among the {used.top_k} likeliest")
    if used.top_p is not None:
        parts.append(f"within a probability of {used.top_p:g}")
    return f"tokens are drawn: {', '.join(parts)}, seed {used.seed}"


def _agreement(agreed: AgreementWithPlain, new_tokens: int) -> str:
    if agreed.forced:
        tokens = f"it read the same text and drew the same token in {agreed.tokens_in_common} of {new_tokens} steps"
    elif agreed.same_tokens:
        tokens = f"the same {count(len(agreed.plain_tokens), 'token')}"
    elif agreed.first_divergence == 0:
        tokens = "another first token"
    else:
        tokens = f"the same {count(agreed.first_divergence or 0, 'token')}, then others"
    selected = "the prompt attends to all of itself, so that its rows select nothing to compare"
    if agreed.selected_in_common is not None:
        selected = f"{agreed.selected_in_common:.1%} of selected positions in common"
    return (
        f"against plain transformers: {tokens}; {selected}; "
        f"largest logit difference {agreed.largest_logit_difference:.3g}"
    )
