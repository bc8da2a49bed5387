"""A benchmark from the options to the report."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import dsa_config
from dsa_config.tools.explanations import explain_all
from dsa_config.tools.printing import console, print_json
from dsa_exec.cli.bench.asked import BenchError, Piece, pieces_of
from dsa_exec.cli.bench.picture import draw
from dsa_exec.cli.bench.report import ModelBenchReport
from dsa_exec.cli.bench.show import show
from dsa_exec.cli.bench.sides import sides_of
from dsa_exec.cli.model_option import Dtype, require_folder, require_transformers
from dsa_exec.cli.picture_file import require_drawable
from dsa_exec.cli.show_report import printable

STANDARD_OUTPUT = Path("-")


def run_as_asked(
    *,
    prefill: str | None,
    context: str | None,
    decode_tokens: int,
    batch: int,
    repetitions: int,
    a: Sequence[str],
    b: Sequence[str] | None,
    model: Path | None,
    device: str,
    dtype: Dtype,
    plot: Path | None,
    json_file: Path | None,
) -> ModelBenchReport:
    """Measure, print, write, and give the report. The arguments are the options of the command.

    Raises:
        SettingError, DsaError: what was asked for cannot be measured.
        OSError: the output cannot be written.
    """
    warnings = [told for it in explain_all(changed_only=True) for told in it.warnings]
    sides = sides_of(a, b)
    pieces = pieces_of(prefill, context)
    require_folder(model)
    if plot is not None:
        require_drawable(plot)
    if json_file is not None:
        _require_writable(json_file)
    require_transformers("dsa bench")
    from dsa_exec.cli.bench.measuring import Bench
    from dsa_exec.cli.model_loading import device_names, dtype_name, load_model

    loaded = load_model(model, device, dtype)
    _require_room(loaded, pieces, decode_tokens)
    passage = (resources.files("dsa_exec.models") / "prompt.txt").read_text("utf-8")
    bench = Bench(loaded, sides, passage=passage, batch=batch, decode_tokens=decode_tokens, repetitions=repetitions)
    interrupted = False
    try:
        bench.run(pieces)
    except KeyboardInterrupt:
        interrupted = True
    report = ModelBenchReport(
        model=loaded.name,
        device=device_names(loaded.model),
        dtype=dtype_name(loaded.model),
        versions=_versions(loaded.model.device),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        batch=batch,
        repetitions=repetitions,
        decode_tokens=decode_tokens,
        snapshots=[side.snapshot() for side in sides],
        alike=len(sides) > 1 and len({side.fingerprint() for side in sides}) == 1,
        work=bench.done,
        interrupted=interrupted,
        warnings=[*warnings, *(f"--{side.name}: {told}" for side in sides for told in side.warnings)],
    )
    _tell(report, plot, json_file)
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
        json_file.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", "utf-8")
    if plot is not None:
        draw(report, plot)
        if json_file != STANDARD_OUTPUT:
            console().print(f"picture: {printable(str(plot))}", soft_wrap=True)


def _require_writable(file: Path) -> None:
    if file.is_dir():
        raise BenchError(f"--json {file}: is a folder; wanted a file, or - for standard output")
    if not file.parent.is_dir():
        raise BenchError(f"--json {file}: there is no folder {file.parent}")


def _require_room(loaded: Any, pieces: Sequence[Piece], decode_tokens: int) -> None:
    """Check that the model has positions for all work."""
    longest = loaded.model.config.max_position_embeddings
    for piece in pieces:
        more = decode_tokens if piece.phase == "decode" else 1
        if piece.tokens + more > longest:
            option = "--prefill" if piece.phase == "prefill" else "--context"
            raise BenchError(
                f"{option} {piece.tokens}: with {more} more {'it is' if more == 1 else 'they are'} over the model's "
                f"{longest} positions"
            )


def _versions(device: Any) -> dict[str, str | None]:
    import torch
    import transformers

    from dsa_exec.core.hardware import capabilities

    return {
        "dsa": dsa_config.__version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "Triton": capabilities(device).triton_version,
        "transformers": transformers.__version__,
    }
