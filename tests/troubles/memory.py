"""Memory that runs out, and plans that cannot be made."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import dsa_exec
from dsa_exec.cli import app
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.dispatch import chunked
from dsa_exec.dispatch.chunked import run_in_chunks
from troubles import produces

V32 = str(Path(dsa_exec.__file__).parents[1] / "examples" / "plan" / "deepseek_v32.json")
CUDA = torch.device("cuda", 0)
FULL = MemoryReading(80 * 2**30, 12 * 2**20, 3 * 2**20)


def plan(*options):
    """`dsa plan` in this process."""
    app(["plan", "--model", V32, "--gpu-mem", "80GiB", *options], standalone_mode=False)


def full(part):
    """Work for which there is no memory."""
    raise torch.OutOfMemoryError("CUDA out of memory.")


@produces("OutOfMemory")
def no_memory_for_one_row(monkeypatch):
    monkeypatch.setattr(chunked, "memory_reading", lambda _: FULL)
    monkeypatch.setattr(chunked, "release_memory", lambda _: None)
    run_in_chunks("index_select", 4096, 2, full, lambda rows: rows * 256 * 2**10, device=CUDA, capturing=False)


@produces("NoPoolMemory")
def weights_that_take_all():
    plan("--weights", "82GiB")


@produces("PlanError")
def less_than_a_page():
    plan("--tp", "8", "--weights", "77309411327")


@produces("PlanError")
def more_stages_than_layers():
    plan("--pp", "62", "--weights", "1GiB")


@produces("GeometryError")
def a_config_without_layers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = json.loads(Path(V32).read_text())
    del config["num_hidden_layers"]
    Path("config.json").write_text(json.dumps(config))
    app(["plan", "--model", "config.json", "--gpu-mem", "80GiB"], standalone_mode=False)


@produces("GeometryError")
def another_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text('{"model_type": "llama"}')
    app(["plan", "--model", "config.json", "--gpu-mem", "80GiB"], standalone_mode=False)


@produces("BadOption")
def no_size():
    app(["plan", "--model", V32, "--gpu-mem", "80 gigs"], standalone_mode=False)


@produces("TooManyRanks")
def more_ranks_than_a_plan_has():
    plan("--tp", "512", "--pp", "61")


@produces("CannotDraw")
def a_picture_of_no_format():
    plan("--tp", "16", "--weights", "42GiB", "--plot", "plan.jpg")
