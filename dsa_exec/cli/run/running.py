"""A run from the options to the report."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsa_config import Explanation, settings
from dsa_config.tools.explanations import explain_all
from dsa_config.tools.printing import console
from dsa_exec.cli.model_option import require_transformers
from dsa_exec.cli.report import CacheFormats, RunReport, SamplingInUse, SettingInForce
from dsa_exec.cli.run.asked import Asked
from dsa_exec.cli.run.launched import may_be_told_prompts
from dsa_exec.cli.run.paths import require_paths
from dsa_exec.cli.run.prompt_lines import read_prompts
from dsa_exec.cli.run.prompts import Prompt, read_prompt, source_of, tokens_of
from dsa_exec.cli.run.stages import Stages
from dsa_exec.cli.show_report import show
from dsa_exec.cli.unknown_names import unknown_name_warnings


def run_as_asked(asked: Asked) -> bool:
    """Run, print, and say whether an interrupt ended it. One that comes before anything runs is raised.

    Raises:
        SettingError, DsaError: what was asked for cannot be run.
        OSError: the output cannot be written.
    """
    if asked.needs_stdout and sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    in_force = explain_all(changed_only=True)  # before anything slow: a bad setting is told at once
    warnings = [*(told for it in in_force for told in it.warnings), *unknown_name_warnings()]
    prompts = None if asked.reads_stream or may_be_told_prompts() else _read(asked)
    stages = Stages()
    with stages.stage("import"):
        require_transformers("dsa run")
        require_paths()
        from dsa_exec.cli.model_loading import load_model
        from dsa_exec.cli.run.member import as_member, load_part, same_prompts
    with as_member(asked) as job:
        if settings.debug_log_decisions:
            logging.basicConfig(level=logging.INFO, format="%(message)s")
        if job is None:
            prompts = prompts or _read(asked)
            with stages.stage("load"):
                loaded = load_model(asked.model, asked.device, asked.dtype, asked.device_map)
        else:
            prompts = same_prompts(job, (prompts or _read(asked)) if job.rank == 0 else [])
            with stages.stage("load"):
                loaded = load_part(asked, job)
        ids = tokens_of(loaded, prompts)
        results = asked.results_file if job is None or job.rank == 0 else Path(os.devnull)
        report, interrupted = _run(asked, loaded, prompts, ids, in_force, warnings, stages, results)
        _show(asked, report)
        if job is not None and not interrupted:
            job.leave()
    return interrupted


def _read(asked: Asked) -> list[Prompt]:
    if asked.prompts is None:
        return [read_prompt(asked.prompt, asked.max_new_tokens)]
    return read_prompts(asked.prompts, asked.max_new_tokens)


def _show(asked: Asked, report: RunReport) -> None:
    if asked.as_json:
        print(json.dumps(report.model_dump(mode="json"), indent=2, allow_nan=False), flush=True)
    elif asked.report:
        if asked.prompts is None:
            print()
        show(report, console(stderr=asked.reports_on_stderr))
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _run(
    asked: Asked,
    loaded: Any,
    prompts: list[Prompt],
    ids: list[list[int]],
    in_force: list[Explanation],
    warnings: list[str],
    stages: Stages,
    results: Path | None,
) -> tuple[RunReport, bool]:
    """Run all prompts, until an interrupt if there is one."""
    from dsa_exec.cli.model_loading import device_names, dtype_name
    from dsa_exec.cli.run.many_prompts import ManyPrompts
    from dsa_exec.cli.run.one_prompt import OnePrompt
    from dsa_exec.cli.run.result_lines import result_lines
    from dsa_exec.cli.run.traced import backends_in_use, logits_use
    from dsa_exec.cli.versions import versions_on
    from dsa_exec.dispatch.trace import record_calls

    with contextlib.ExitStack() as stack:
        trace = stack.enter_context(record_calls())
        if asked.prompts is None:
            one = OnePrompt(loaded, prompts[0], ids[0], asked, stages)
            interrupted = _is_interrupted(one.run)
            tokens = one.tokens
            what: dict[str, Any] = {
                "finished": int(one.is_done),
                "new_tokens": len(tokens),
                "tokens": tokens,
                "text": one.text_of(tokens),
                "agreement": one.agreement,
                "compared": None,
                "alike": None,
            }
        else:
            lines = stack.enter_context(result_lines(results))
            many = ManyPrompts(loaded, prompts, ids, asked, stages, lines)
            interrupted = _is_interrupted(many.run)
            what = {
                "finished": lines.finished,
                "new_tokens": lines.new_tokens,
                "tokens": None,
                "text": None,
                "agreement": None,
                "compared": many.compared if asked.compares else None,
                "alike": many.alike if asked.compares else None,
            }
    drawn = asked.sampling()
    report = RunReport(
        model=loaded.name,
        device=device_names(loaded.model),
        dtype=dtype_name(loaded.model),
        versions=versions_on(loaded.model.device),
        notes=list(loaded.notes),
        prompt=prompts[0].source if asked.prompts is None else source_of(asked.prompts),
        prompts=len(prompts),
        max_new_tokens=asked.max_new_tokens,
        prompt_tokens=sum(map(len, ids)),
        interrupted=interrupted,
        sampling=None
        if drawn.is_greedy
        else SamplingInUse(temperature=drawn.temperature, top_k=drawn.top_k, top_p=drawn.top_p, seed=drawn.seed),
        settings=[SettingInForce(name=it.name, value=it.value, source=it.source, origin=it.origin) for it in in_force],
        warnings=warnings,
        caches=CacheFormats(index_k=settings.index_k_format, kv=settings.kv_format),
        backends=backends_in_use(trace),
        logits=logits_use(trace),
        stages=stages.done,
        **what,
    )
    return report, interrupted


def _is_interrupted(work: Callable[[], None]) -> bool:
    try:
        work()
    except KeyboardInterrupt:
        return True
    return False
