"""What importing costs: settings and budgets start without torch, and packages import only what is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMAND = """
import contextlib, io, sys
from dsa_exec.cli import main
sys.argv = ["dsa", *{arguments}]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
"""
HEAVY = ("torch", "triton", "transformers", "numpy")


def loaded_by(program: str) -> set[str]:
    """The names of the modules that a program leaves loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "program",
    [
        "import dsa_config; dsa_config.settings.fuse_topk; dsa_config.settings.snapshot()",
        "import dsa_config.cli",
        "import dsa_exec, dsa_exec.core, dsa_exec.layouts, dsa_exec.memory, dsa_exec.models",
        "import dsa_exec.memory.logits_budget, dsa_exec.memory.row_chunks, dsa_exec.core.hardware",
        "import dsa_exec.memory.chunk_plan, dsa_exec.memory.footprint",
        "import dsa_exec.layouts.index_k, dsa_exec.layouts.mla_kv, dsa_exec.layouts.paging",
        *(
            COMMAND.format(arguments=arguments)
            for arguments in (
                ["config", "show"],
                ["--help"],
                ["run", "--help"],
                ["bench", "--help"],
                ["run", "--top-p", "0.5"],
                ["run", "--prompts", "nowhere.jsonl"],
                ["bench", "--a", "fuse_topk=maybe"],
                ["bench", "--prefill", "many"],
            )
        ),
    ],
)
def test_starts_without_torch(program):
    """None of these needs a tensor."""
    assert loaded_by(program).isdisjoint(HEAVY)


def test_the_execution_package_imports_nothing_by_itself():
    """Names are looked up when they are used; unknown ones are attribute errors."""
    modules = loaded_by("import dsa_exec")
    assert [name for name in modules if name.startswith(("dsa_exec.", "dsa_config"))] == []
    import dsa_exec

    assert all(getattr(dsa_exec, name) is not None for name in dsa_exec.__all__)
    assert dir(dsa_exec) == dsa_exec.__all__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dsa_exec.nonsense  # noqa: B018
