"""`dsa run`: continue a text with a DSA model, and report how."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsa_config import settings
from dsa_config.tools.explanations import explain_all
from dsa_exec.cli.device_option import AUTO, Device, usable_device
from dsa_exec.cli.progress import late_progress
from dsa_exec.cli.report import AgreementWithPlain, BackendInUse, LogitsUse, RunReport, SettingInForce, Stage
from dsa_exec.cli.show_report import show
from dsa_exec.core.errors import DsaError

if TYPE_CHECKING:
    from dsa_exec.dispatch.trace import Trace


class RunError(DsaError):
    """What was asked for cannot be run: a prompt, a folder. Says which, and what is wanted."""


def run(
    prompt: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Text to continue, or - for standard input.", show_default="a text of ours"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="How many tokens to add at most.")] = 32,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A deepseek_v32 or glm_moe_dsa checkpoint in Hugging Face format.",
            show_default="a tiny model of ours",
        ),
    ] = None,
    device: Device = AUTO,
    compare: Annotated[
        bool, typer.Option(help="Run plain transformers on the same prompt too, and report how far both agree.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, for programs.")] = False,
) -> None:
    """Continue a text with a DSA model, greedily, on our indexer and attention; then report how."""
    in_force = explain_all(changed_only=True)  # before anything slow: a bad setting is told at once
    source, text = _prompt(prompt)
    if model is not None and not model.is_dir():
        what = "is a file" if model.exists() else "is not there"
        raise RunError(f"--model {model}: {what}; wanted a folder in Hugging Face format")
    if settings.debug_log_decisions:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    stages = _Stages()
    with stages.stage("import"):
        import torch

        from dsa_exec.dispatch.trace import record_calls

        try:
            from dsa_exec.integrations import transformers as hf
            from dsa_exec.integrations.transformers.greedy import agreement, continue_greedily
        except ModuleNotFoundError as error:
            if error.name != "transformers":
                raise
            raise RunError("dsa run needs transformers: pip install 'dsa[transformers]'") from None
    where = usable_device(device)
    hf.be_quiet()
    with stages.stage("load"):
        loaded = hf.load_tiny(where) if model is None else hf.load_checkpoint(model, where)
    ids = _tokens(loaded, source, text, max_new_tokens)
    plain = None
    if compare:
        with late_progress("plain transformers", max_new_tokens) as advance:
            plain = continue_greedily(loaded.model, ids, max_new_tokens, on_token=advance)
        stages.add("plain transformers, prefill", plain.prefill_s)
        stages.add("plain transformers, decode", plain.decode_s)
    with late_progress("on our ops", max_new_tokens) as advance, hf.attached(loaded.model), record_calls() as trace:
        cache = hf.DsaCache.for_model(loaded.model, max_tokens=len(ids) + max_new_tokens)
        ours = continue_greedily(loaded.model, ids, max_new_tokens, cache=cache, on_token=advance)
    stages.add("prefill", ours.prefill_s)
    stages.add("decode", ours.decode_s)
    agreed = None
    if plain is not None:
        with stages.stage("compare"):
            found = agreement(plain, ours)
        agreed = AgreementWithPlain(
            same_tokens=found.first_divergence is None, plain_tokens=plain.tokens, **asdict(found)
        )
    report = RunReport(
        model=loaded.name,
        device=_device_name(torch, where),
        notes=list(loaded.notes),
        prompt=source,
        prompt_tokens=len(ids),
        tokens=ours.tokens,
        text=loaded.tokenizer.decode(ours.tokens, skip_special_tokens=True),
        settings=[SettingInForce(name=it.name, value=it.value, source=it.source, origin=it.origin) for it in in_force],
        warnings=[warning for it in in_force for warning in it.warnings],
        backends=_backends(trace),
        logits=_logits(trace),
        stages=stages.done,
        agreement=agreed,
    )
    if as_json:
        print(json.dumps(report.model_dump(mode="json"), indent=2, allow_nan=False), flush=True)
    else:
        show(report)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)


class _Stages:
    """Seconds of each stage, in order."""

    def __init__(self) -> None:
        self.done: list[Stage] = []

    def add(self, name: str, seconds: float) -> None:
        self.done.append(Stage(name=name, seconds=round(seconds, 6)))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)


def _prompt(name: str | None) -> tuple[str, str]:
    """Where the prompt comes from, in words, and its text."""
    if name is None:
        text = (resources.files("dsa_exec.models") / "prompt.txt").read_text("utf-8")
        return "the text of this project", text.strip()
    source = "standard input" if name == "-" else name
    if name == "" or (name == "-" and sys.stdin is None):
        raise RunError(f"--prompt {name!r}: there is nothing to read from")
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise RunError(f"--prompt {name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RunError(f"--prompt {name}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not text.strip():
        raise RunError(f"--prompt {name}: holds no text")
    return source, text


def _tokens(loaded: Any, source: str, text: str, max_new_tokens: int) -> list[int]:
    ids: list[int] = loaded.tokenizer.encode(text)
    longest = loaded.model.config.max_position_embeddings
    if len(ids) + max_new_tokens > longest:
        raise RunError(
            f"{source}: {len(ids)} tokens and {max_new_tokens} new ones are more than the model's {longest} positions"
        )
    known = loaded.model.config.vocab_size
    if max(ids) >= known:
        raise RunError(f"{loaded.name}: the tokenizer gives token {max(ids)}, and the model knows {known} of them")
    return ids


def _device_name(torch: Any, device: Any) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _backends(trace: Trace) -> list[BackendInUse]:
    return [
        BackendInUse(op=op, backend=backend, choice=decision.choice, why=decision.why, calls=calls)
        for (op, backend), (decision, calls) in sorted(trace.decisions.items())
    ]


def _logits(trace: Trace) -> LogitsUse | None:
    if not trace.chunked:
        return None
    largest = max(trace.chunked, key=lambda call: call.rows * call.row_bytes)
    return LogitsUse(
        budget_bytes=largest.budget.bytes,
        static_bytes=largest.budget.static_bytes,
        live_bytes=largest.budget.live_bytes,
        cap_bytes=largest.budget.cap_bytes,
        rows=largest.rows,
        row_bytes=largest.row_bytes,
        chunks=largest.chunks,
        is_too_small=largest.budget.bytes < largest.least_bytes,
        calls=len(trace.chunked),
    )
