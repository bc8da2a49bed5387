"""`dsa run --nproc N`: starts N processes, each of which is a rank of one run, and tells how they ended."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import signal
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsa_exec.cli.device_option import AUTO
from dsa_exec.cli.run.asked import Asked
from dsa_exec.cli.run.errors import RunError

if TYPE_CHECKING:
    from dsa_exec.runtime.distributed.launch import RankEnded

RANK = "dsa_exec.cli.run.rank"
"""What each process runs."""


def run_on_ranks(asked: Asked, nproc: int) -> int:
    """Run as so many processes, which print what one would; and the exit status of all of it.

    Raises:
        RunError: so many processes cannot run it, or one of them has found that what was given is wrong.
        OSError: the output cannot be written, or a process has died or hangs.
    """
    _require_equal_parts(asked.model, nproc)
    _require_accelerate(nproc)
    import torch

    from dsa_exec.runtime.distributed.launch import launch

    if asked.device == "cuda" or (asked.device == AUTO and torch.cuda.is_available()):
        _require_gpus(nproc, torch.cuda.device_count())
    given = dataclasses.asdict(dataclasses.replace(asked, nproc=None))
    ended = launch(RANK, [json.dumps(given, default=str)], nproc)
    if ended is None:
        return 0
    if isinstance(ended, int):
        return 128 + ended
    raise _error_of(ended, nproc)


def _require_equal_parts(model: Path | None, nproc: int) -> None:
    """Check what config.json says before any process is started; what it does not say, the ranks check."""
    from dsa_exec.runtime.distributed.even_parts import split_widths, uneven

    file = (model or resources.files("dsa_exec.models") / "tiny") / "config.json"
    try:
        config: Any = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return  # the ranks tell what is wrong with it
    fault = uneven(split_widths(config), nproc) if isinstance(config, dict) else None
    if fault is not None:
        raise RunError(f"--nproc {nproc}: {fault} ({'the tiny model' if model is None else file})")


def _require_accelerate(nproc: int) -> None:
    """Check that accelerate is installed, and do not import it here: the processes do."""
    try:
        is_there = importlib.util.find_spec("accelerate") is not None
    except ValueError:  # the name is taken, by what is no package
        is_there = False
    if not is_there:
        raise RunError(
            f"--nproc {nproc}: needs accelerate, which transformers asks for to place the parts of a model: "
            "pip install 'dsa[spread]'"
        )


def _require_gpus(nproc: int, gpus: int) -> None:
    if nproc > gpus:
        there = "is 1 GPU" if gpus == 1 else f"are {gpus} GPUs"
        most = f"at most {gpus}, or --device cpu with GPUs hidden from torch" if gpus else "--device cpu"
        raise RunError(f"--nproc {nproc}: there {there} here, and each process takes one; wanted {most}")


def _error_of(ended: RankEnded, nproc: int) -> Exception:
    """What a rank has raised, as if it had been raised here."""
    said = ended.said or {"kind": "none", "text": ""}
    match said["kind"]:
        case "wrong":
            return RunError(said["text"])
        case "system":
            return OSError(said["errno"], said["text"], said["file"])
        case "lost":
            return ChildProcessError(said["text"])
        case _:
            print(said["text"], end="", file=sys.stderr)  # the traceback of a fault of ours, once
            return ChildProcessError(f"rank {ended.rank} of {nproc} {_how(ended.code)}, and all others were ended")


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " (as NCCL does where ranks wait too long for each other)" if -code == signal.SIGABRT else ""
    return f"was ended by {name}{hint}"
