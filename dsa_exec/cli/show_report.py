"""The report of `dsa run` as text."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from dsa_config.tools.printing import console
from dsa_exec.cli.report import AgreementWithPlain, LogitsUse, RunReport


def show(report: RunReport) -> None:
    """Print the text that was generated, then how it came about."""
    out = console()
    out.print("the text goes on:")
    out.print(printable(report.text), soft_wrap=True)
    out.print()
    read = count(report.prompt_tokens, "token")
    out.print(f"{report.model} on {report.device}, after {read} from {report.prompt}", soft_wrap=True)
    for note in report.notes:
        out.print(f"note: {note}", soft_wrap=True)
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
    out.print(table(("stage", "seconds"), ((it.name, f"{it.seconds:.3f}") for it in report.stages)))
    if report.agreement is not None:
        out.print()
        out.print(_agreement(report.agreement), soft_wrap=True)


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


def _logits(use: LogitsUse) -> str:
    limits = [f"{size(use.static_bytes)} as a share of total memory"]
    if use.live_bytes is not None:
        limits.append(f"{size(use.live_bytes)} as a share of free memory")
    if use.cap_bytes is not None:
        limits.append(f"{size(use.cap_bytes)} by mqa_logits_max_chunk_bytes")
    words = (
        f"logits: {count(use.rows, 'row')} of {size(use.row_bytes)} in {count(use.chunks, 'chunk')}, "
        f"budget {size(use.budget_bytes)} (least of {', '.join(limits)}); {count(use.calls, 'call')}"
    )
    return f"{words}\nThe budget is less than one row, so that rows came one by one." if use.is_too_small else words


def _agreement(agreed: AgreementWithPlain) -> str:
    if agreed.same_tokens:
        tokens = f"the same {count(len(agreed.plain_tokens), 'token')}"
    elif agreed.first_divergence == 0:
        tokens = "another first token"
    else:
        tokens = f"the same {count(agreed.first_divergence or 0, 'token')}, then others"
    selected = "nothing selected, the prompt attends to all of itself"
    if agreed.selected_in_common is not None:
        selected = f"{agreed.selected_in_common:.1%} of selected positions in common"
    return (
        f"against plain transformers: {tokens}; {selected}; "
        f"largest logit difference {agreed.largest_logit_difference:.3g}"
    )
