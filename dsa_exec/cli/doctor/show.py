"""The report of `dsa doctor` as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console

from dsa_config.tools.printing import console
from dsa_exec.cli.doctor.report import (
    Alternative,
    CallSizes,
    CEnvironment,
    Condition,
    DoctorReport,
    IndexPages,
    Machine,
    OpChoice,
    StepDecision,
    Trouble,
    VendorLibrary,
)
from dsa_exec.cli.show_report import count, printable, size, table


def show(report: DoctorReport) -> None:
    """Print everything, and what is wrong last, where a terminal leaves it in sight."""
    out = console()
    _section(out, "machine", _machine(report.machine, report.version))
    out.print(table(("library", "version", "interface", "where, or why not"), map(_library, report.libraries)))
    out.print()
    if report.settings:
        rows = ((it.name, str(it.value), it.origin) for it in report.settings)
        out.print(table(("setting", "value", "from"), _printable(rows)))
    elif not report.unreadable:
        out.print("settings: all at their defaults")
    if report.unreadable:
        names = ", ".join(it.name for it in report.unreadable)
        out.print(f"cannot be read, so that every use fails; defaults are assumed here: {names}", soft_wrap=True)
    out.print()
    if report.assumed is not None:
        processors = report.assumed.multiprocessors or "an unknown number of"
        what = f"{report.assumed.arch} with {processors} multiprocessors and the libraries above"
        out.print(f"What follows is for assumed hardware, not for this machine: {what}.", soft_wrap=True)
        out.print()
    out.print(f"typical calls: {_sizes(report.sizes)}", soft_wrap=True)
    out.print()
    out.print(table(("op", "call", "backend", "why"), _printable(_choices(report.ops))))
    out.print()
    alternatives = list(_alternatives(report.ops))
    if alternatives:
        out.print(
            table(("other backend", "what would choose it, or why it cannot run", "ops"), _printable(alternatives))
        )
        out.print()
    if report.steps:
        out.print(table(("decided once a step", "choice", "why"), _printable(map(_step, report.steps))))
        out.print()
    is_hip = report.machine.is_hip if report.assumed is None else report.assumed.is_hip
    if report.index_pages is not None:
        _section(out, "pages of a new index-K cache", _index_pages(report.index_pages, in_full=is_hip))
    if report.c_environment is not None:
        _section(out, "environment", _environment(report.c_environment))
    for trouble in report.troubles:
        out.print(printable(_trouble(trouble)), soft_wrap=True)
    out.print(_summary(report), soft_wrap=True)


def _section(out: Console, title: str, lines: Iterable[str]) -> None:
    out.print(title)
    for line in lines:
        out.print(f"  {printable(line)}", soft_wrap=True)
    out.print()


def _printable(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    return (tuple(map(printable, row)) for row in rows)


def _machine(it: Machine, version: str) -> Iterator[str]:
    processors = f", {it.multiprocessors} multiprocessors" if it.multiprocessors else ""
    yield f"{it.device}: {it.name}, {it.arch}{processors}{', ROCm' if it.is_hip else ''}"
    if it.total_bytes is not None and it.free_bytes is not None:
        reusable = f", {size(it.reusable_bytes)} reusable" if it.reusable_bytes else ""
        yield f"memory: {size(it.total_bytes)}, {size(it.free_bytes)} free{reusable}"
    for other in it.accelerators:
        if other.device != it.device:
            yield f"also {other.device}: {other.name}, {other.arch}, {size(other.total_bytes)}"
    triton = "no Triton" if it.triton is None else f"Triton {it.triton}"
    interpreted = ", which interprets kernels on the CPU" if it.triton_is_interpreted else ""
    yield f"dsa {version}, Python {it.python}, torch {it.torch} for {it.torch_built_for}, {triton}{interpreted}"


def _library(it: VendorLibrary) -> tuple[str, ...]:
    version = " ".join(part for part in (it.distribution, it.version) if part) or "-"
    generation = "-" if it.generation is None else f"generation {it.generation}"
    return tuple(map(printable, (it.name, version, generation, it.reason or it.file or "-")))


def _sizes(it: CallSizes) -> str:
    heads = " or ".join(map(str, it.heads))
    return (
        f"prefill of {count(it.rows, 'row')} over {count(it.context, 'key')}, decode and verification for "
        f"{count(it.batch, 'request')} of so many tokens; {heads} heads, {count(it.index_heads, 'index head')}"
    )


def _choices(ops: Iterable[OpChoice]) -> Iterator[tuple[str, ...]]:
    for op in ops:
        for call in op.calls:
            origin = f" ({op.origin})" if op.source not in (None, "default") else ""
            unreadable = "its setting cannot be read; " if op.choice is None else ""
            yield op.op, "; ".join(call.work), call.backend or "fails", f"{unreadable}{call.why}{origin}"


def _alternatives(ops: Sequence[OpChoice]) -> Iterator[tuple[str, ...]]:
    """A row for each backend and what it says, with the ops that it says it of; and the calls, where not of all."""
    said: dict[tuple[str, str], dict[str, list[str]]] = {}
    for op in ops:
        for call in op.calls:
            for it in call.others:
                said.setdefault((it.backend, _answer(op, it)), {}).setdefault(op.op, []).extend(call.work)
    everything = {op.op: [work for call in op.calls for work in call.work] for op in ops}
    for (backend, answer), by_op in sorted(said.items()):
        of = (op if work == everything[op] else f"{op} ({'; '.join(work)})" for op, work in by_op.items())
        yield backend, answer, ", ".join(of)


def _answer(op: OpChoice, it: Alternative) -> str:
    if it.setting is None:
        return f"{it.verdict}: {it.reason}"
    setting = it.setting.replace(op.op.upper(), "<OP>")  # so that ops of which the same is to be said share a row
    return f"{setting} ({it.reason})" if it.reason else setting


def _step(it: StepDecision) -> tuple[str, ...]:
    return it.what, it.choice or "fails", it.why


def _index_pages(it: IndexPages, *, in_full: bool) -> Iterator[str]:
    yield f"{it.order}, {count(it.page_tokens, 'token')} each: {it.why}"
    for condition in it.conditions if in_full else ():
        yield f"  {'yes' if condition.holds else 'no':3}  {_condition(condition)}"


def _condition(it: Condition) -> str:
    return f"{it.name}: {it.found}" + ("" if it.holds else f"; wanted {it.wanted}")


def _environment(it: CEnvironment) -> Iterator[str]:
    if not it.looked_at:
        yield f"what libraries written in C see was not looked at: {it.why_not}"
    elif it.differences:
        variables = f"{len(it.differences)} of {count(it.compared, 'variable')}"
        yield f"libraries written in C see {variables} differently than os.environ has them (below)"
    else:
        yield f"libraries written in C see {count(it.compared, 'variable')} as os.environ has them"


def _trouble(it: Trouble) -> str:
    lines = [f"{it.severity}: {it.message}"]
    lines += [f"  in {it.origin}"] if it.origin else []
    return "\n".join([*lines, f"  {it.suggestion}"] if it.suggestion else lines)


def _summary(report: DoctorReport) -> str:
    if not report.troubles:
        return "nothing is wrong"
    counts = ((report.errors, "error"), (report.warnings, "warning"))
    return ", ".join(count(number, what) for number, what in counts if number)
