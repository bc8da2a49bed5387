"""`python -m benchmarks transformers`: the command line."""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from pydantic import ValidationError

from benchmarks.counts import count
from benchmarks.transformers import agreement, models
from benchmarks.transformers.contexts import COMPILED, FP8, MODEL, PLAIN, STEPS, WARM_UP_STEPS, Way, measure
from benchmarks.transformers.record import TransformersRecord
from benchmarks.transformers.table import page, written
from dsa_exec.core.hardware import capabilities
from dsa_exec.integrations.transformers import be_quiet, load_tiny


def add_command(commands: Any) -> None:
    """Add the command to the others."""
    parser = commands.add_parser("transformers", help="memory, time and texts of models beside plain transformers")
    parser.add_argument("--contexts", type=int, nargs="+", metavar="TOKENS", help="of what lengths")
    parser.add_argument("--heads", type=count, help="of the attention (16 on a GPU)")
    parser.add_argument("--repeats", type=count, default=3, help="timed prefills of each (3)")
    parser.add_argument("--compiled", action="store_true", help="compiled steps too, a minute for each context")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the tables; into a page that has marks for them, between these",
    )
    parser.add_argument("--read", type=Path, metavar="FILE", help="show a record in the place of measuring")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        if options.read is not None:
            record = TransformersRecord.model_validate_json(options.read.read_text())
        else:
            record = _measured(options)
        if options.json is not None:
            options.json.write_text(record.model_dump_json(indent=1) + "\n")
        if options.markdown is not None:
            there = options.markdown.read_text() if options.markdown.exists() else None
            options.markdown.write_text(written(there, record))
    except (OSError, ValidationError, ValueError) as error:
        print(f"benchmarks transformers: {error}", file=sys.stderr)
        return 2
    print(page(record))
    return 0


def _measured(options: argparse.Namespace) -> TransformersRecord:
    """On the GPU if there is one, else small sizes on the CPU."""
    be_quiet()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    sizes = models.geometry({} if options.heads is None else {"num_attention_heads": options.heads}, on_gpu=on_gpu)
    contexts = options.contexts or list(models.ON_A_GPU if on_gpu else models.ELSEWHERE)
    longest = sizes["max_position_embeddings"] - WARM_UP_STEPS - STEPS
    if not all(2 <= tokens <= longest for tokens in contexts):
        raise ValueError(f"--contexts {' '.join(map(str, contexts))}: 2 to {longest} tokens are supported")
    ways = [FP8, MODEL, Way(PLAIN, None)]
    if options.compiled:
        ways.insert(1, COMPILED)
    hw = capabilities(device)
    rows = []
    for row in measure(models.synthetic(sizes, device, dtype), contexts, ways, options.repeats):
        print(
            f"{row.tokens} tokens, {row.way}: prefill {row.prefill}, decode {row.decode}", file=sys.stderr, flush=True
        )
        rows.append(row)
    tiny = load_tiny(device).model.to(dtype)
    shortest, most, new_tokens = agreement.ON_A_GPU if on_gpu else agreement.ELSEWHERE
    texts = list(agreement.compare(tiny, [MODEL, FP8], agreement.prompts(shortest, most), new_tokens))
    return TransformersRecord(
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        arch=hw.arch,
        torch=hw.torch_version,
        triton=hw.triton_version,
        transformers=transformers.__version__,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        dtype=str(dtype).removeprefix("torch."),
        geometry=sizes,
        repeats=options.repeats,
        steps=STEPS,
        contexts=rows,
        agreement=texts,
    )
