"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import dsa_config
import dsa_exec
from dsa_exec.cli.generate import generated

ROOT = Path(dsa_exec.__file__).parents[1]
SOURCES = sorted([*ROOT.glob("dsa_config/**/*.py"), *ROOT.glob("dsa_exec/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/test_*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in SOURCES if "dsa_exec" in path.parts], ids=name_of)
def test_only_the_settings_read_the_environment(path):
    """Outside dsa_config nothing looks at os.environ or os.getenv."""
    names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert names.isdisjoint({"environ", "environb", "getenv", "putenv"})


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_one_folder_talks_to_other_ranks(path):
    """Outside dsa_exec/runtime/distributed nothing imports torch.distributed."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    allowed = path.is_relative_to(ROOT / "dsa_exec" / "runtime" / "distributed")
    assert allowed or not any(name.startswith("torch.distributed") for name in names)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_are_small_and_named_for_what_they_hold(path):
    """One idea a file: at most 300 lines, and no drawer for everything."""
    assert len(path.read_text().splitlines()) <= 300
    assert path.stem not in {"utils", "util", "helpers", "common", "misc", "manager", "base"}


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_test_says_what_it_shows(path):
    """Each test has a docstring that states a behaviour, and checks something."""
    tree = ast.parse(path.read_text())
    tests = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert tests
    assert [test.name for test in tests if not ast.get_docstring(test)] == []
    assert [test.name for test in tests if not checks(test)] == []


def checks(test: ast.AST) -> bool:
    """Whether a test asserts, expects an error, or calls something that is named for checking."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rsplit(".", 1)[-1]
            if called in {"raises", "warns"} or called.startswith(("check_", "assert_", "expect_")):
                return True
    return False


@pytest.mark.parametrize(
    ("path", "text"), generated().items(), ids=lambda it: name_of(it) if isinstance(it, Path) else ""
)
def test_generated_files_are_current(path, text):
    """What is generated is committed as it would be generated now; `make generate` writes it."""
    assert path.read_text("utf-8") == text, "run `make generate`"


def test_one_version_everywhere():
    """The package, the project file and the change log agree on the version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == dsa_config.__version__
    assert f"## {dsa_config.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_readmes_commands_are_targets():
    """Each `make` command that the README names exists."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text()))
    assert {"run", "test"} <= named <= targets


def test_no_vendor_is_a_hard_dependency():
    """Vendor kernels come with extras; no make target or CI step installs them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    vendors = ("deep-gemm", "flash-mla", "aiter")
    assert not [it for it in project["dependencies"] if any(vendor in it for vendor in vendors)]
    for extra, requirements in project["optional-dependencies"].items():
        assert extra in {"hopper", "rocm"} or not [it for it in requirements if any(vendor in it for vendor in vendors)]
    for script in (ROOT / "Makefile", ROOT / ".ci/install", ROOT / ".ci/run", ROOT / ".ci/constraints.txt"):
        assert not [vendor for vendor in (*vendors, "hopper", "rocm") if vendor in script.read_text()]
