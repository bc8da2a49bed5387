"""Draws what `dsa run` prints, for the README: `python docs/scripts/terminal.py` runs it and writes the picture.

Times and memory differ from run to run, so that nothing compares the picture with what would be drawn now.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
WIDTH = 116
PROGRAM = "from dsa_exec.cli import main; main()"
PICTURES = {"run.svg": "dsa run"}
"""The command that each picture shows."""


def printed(command: str) -> str:
    """What a command prints on a terminal of this width."""
    environ = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", PROGRAM, *command.split()[1:]]
    done = subprocess.run(program, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.rstrip()


def drawn(name: str, command: str) -> str:
    """The picture of a terminal in which a command was run."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=WIDTH + 2, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text(f"$ {command}", style="bold"))
        console.print(Text.from_ansi(printed(command)))
        svg = console.export_svg(title=" ", unique_id=Path(name).stem)
    # Lengths are in the file, so that any font of fixed width does: no font, and no address, is taken from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.S)
    svg = re.sub(r"font-family:[^;]*;", "font-family: ui-monospace, Menlo, Consolas, monospace;", svg)
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, command in PICTURES.items():
        (FOLDER / name).write_text(drawn(name, command), "utf-8")
        print(f"wrote {FOLDER / name}")
