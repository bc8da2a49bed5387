"""A benchmark from the options to the report."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from dsa_config.tools.explanations import explain_all
from dsa_config.tools.printing import console, print_json
from dsa_exec.cli.bench.asked import BenchError, Piece, decode_tokens_of, pieces_of
from dsa_exec.cli.bench.output import STANDARD_OUTPUT, file_of, require_writable, write_json
from dsa_exec.cli.bench.picture import draw
from dsa_exec.cli.bench.report import ModelBenchReport
from dsa_exec.cli.bench.show import show
from dsa_exec.cli.bench.sides import sides_of
from dsa_exec.cli.model_option import Dtype, require_folder, require_transformers
from dsa_exec.cli.plan.sizes import count_of
from dsa_exec.cli.show_report import printable
from dsa_exec.cli.unknown_names import unknown_name_warnings
from dsa_exec.cli.versions import versions_on

MOST_REQUESTS = 4096
MOST_REPETITIONS = 1000


def run_as_asked(
    *,
    prefill: str | None,
    context: str | None,
    decode_tokens: str | None,
    batch: str,
    repetitions: str,
    a: Sequence[str],
    b: Sequence[str] | None,
    model: Path | None,
    device: str,
    dtype: Dtype,
    plot: str | None,
    json: str | None,
) -> ModelBenchReport:
    """Measure, print, write, and give the report. The arguments are the options of the command.

    Raises:
        SettingError, DsaError: what was asked for cannot be measured.
        OSError: the output cannot be written.
    """
    warnings = [told for it in explain_all(changed_only=True) for told in it.warnings]
    warnings += unknown_name_warnings()
    sides = sides_of(a, b)
    pieces = pieces_of(prefill, context, decode_tokens)
    requests = count_of("--batch", batch, most=MOST_REQUESTS)
    times = count_of("--repetitions", repetitions, most=MOST_REPETITIONS)
    require_folder(model)
    picture, json_file = file_of("--plot", plot), file_of("--json", json)
    require_writable(picture, json_file)
    require_transformers("dsa bench")
    from dsa_exec.cli.bench.measuring import Bench
    from dsa_exec.cli.model_loading import device_names, dtype_name, load_model

    loaded = load_model(model, device, dtype)
    _require_room(loaded, pieces)
    passage = (resources.files("dsa_exec.models") / "prompt.txt").read_text("utf-8")
    bench = Bench(loaded, sides, passage=passage, batch=requests, repetitions=times)
    # Before anything runs: a backend may leave a device that answers no more.
    device_name, versions = device_names(loaded.model), versions_on(loaded.model.device)
    interrupted = False
    try:
        bench.run(pieces)
    except KeyboardInterrupt:
        interrupted = True
    report = ModelBenchReport(
        model=loaded.name,
        device=device_name,
        dtype=dtype_name(loaded.model),
        versions=versions,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        batch=requests,
        repetitions=times,
        decode_tokens=decode_tokens_of(pieces),
        snapshots=[side.snapshot() for side in sides],
        alike=len(sides) > 1 and len({side.fingerprint() for side in sides}) == 1,
        work=bench.done,
        interrupted=interrupted,
        warnings=[*warnings, *(f"--{side.name}: {told}" for side in sides for told in side.warnings)],
    )
    _tell(report, picture, json_file)
    return report


def _tell(report: ModelBenchReport, plot: Path | None, json_file: Path | None) -> None:
    document = report.model_dump(mode="json")
    if json_file == STANDARD_OUTPUT:
        print_json(document)
    else:
        show(report)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if json_file is not None and json_file != STANDARD_OUTPUT:
        write_json(json_file, document)
    if plot is not None:
        is_drawn = draw(report, plot)
        if json_file != STANDARD_OUTPUT:
            words = f"picture: {plot}" if is_drawn else f"no picture {plot}: nothing was timed"
            console().print(printable(words), soft_wrap=True)


def _require_room(loaded: Any, pieces: Sequence[Piece]) -> None:
    """Check that the model has positions for all work."""
    longest = loaded.model.config.max_position_embeddings
    for piece in pieces:
        more = piece.steps
        if piece.tokens + more > longest:
            option = "--prefill" if piece.phase == "prefill" else "--context"
            raise BenchError(
                f"{option} {piece.tokens}: with {more} more {'it is' if more == 1 else 'they are'} over the model's "
                f"{longest} positions"
            )
