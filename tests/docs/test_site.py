"""The site is built from docs/ without the network, has all pages, and asks no other host for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS) for path in DOCS.glob("**/*.md"))


def build(site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    # As in the Makefile without --quiet, under which mkdocs counts no warnings, so that nothing is strict.
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site), *options]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


def test_every_page_is_there_with_its_navigation(site):
    """Each page of docs/ is a file of the site, and reached from the start page."""
    start = (site / "index.html").read_text("utf-8")
    for page in PAGES:
        assert (site / page.with_suffix(".html")).is_file()
        assert f'href="{page.with_suffix(".html")}"' in start or page.name == "index.md"


def test_nothing_comes_from_another_host(site):
    """No script, style, font, picture or frame has an address; only links that a reader follows have one."""
    for page in site.glob("**/*.html"):
        tags = re.findall(
            r"<(?:script|img|iframe|source|video|audio|link|object|embed)\b[^>]*>", page.read_text("utf-8")
        )
        assert [tag for tag in tags if re.search(r"""(?:src|href|data)=["']?(?:https?:)?//""", tag)] == []
    for style in site.glob("**/*.css"):
        assert re.findall(r"url\(\s*[\"']?(?:https?:)?//", style.read_text("utf-8")) == []


def test_pictures_ask_for_nothing_either():
    """What the pages show is drawn with what a browser has."""
    pictures = sorted((DOCS / "pictures").glob("*.svg"))
    assert pictures
    for picture in pictures:
        text = picture.read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http" not in text, picture.name
        assert "@import" not in text


def test_files_of_the_repository_that_pages_link_are_there(site):
    """An example as a page that shows it, a record as a file."""
    assert "what_fits" in (site / "repository/examples/plan/what_fits.py.html").read_text("utf-8")
    assert (site / "repository/benchmarks/results/h100/ops.png").is_file()
    plan = (site / "plan.html").read_text("utf-8")
    assert 'href="repository/examples/plan/what_fits.py.html"' in plan
    assert "../examples" not in plan


@pytest.mark.parametrize(
    "wrong", ["[a](no-such-page.md)", "[a](concepts.md#no-such-heading)", "[a](../no/such/file.py)"]
)
def test_what_leads_nowhere_ends_the_build(tmp_path, wrong):
    """A page, a heading or a file of the repository that is not there."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Start\n\n{wrong}\n")
    (docs / "concepts.md").write_text("# Concepts\n")
    configuration = (ROOT / "mkdocs.yml").read_text("utf-8")
    configuration = configuration[: configuration.index("nav:\n  - Start")].replace(
        "docs/scripts/", f"{ROOT}/docs/scripts/"
    )
    (tmp_path / "mkdocs.yml").write_text(configuration)
    done = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode == 1
    assert "Aborted with 1 warnings in strict mode" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("script", "picture"),
    [("dataflow", "dataflow"), ("fused_select", "fused-select"), ("key_split", "key-split")],
)
def test_a_picture_is_what_its_script_draws(script, picture):
    """The committed picture is current."""
    program = "import runpy, sys; print(runpy.run_path(sys.argv[1])['picture'](), end='')"
    command = [sys.executable, "-c", program, str(DOCS / "scripts" / f"{script}.py")]
    # One script takes its shapes from another, as it finds it when it is run itself.
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(DOCS / "scripts")))}
    drawn = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    assert (DOCS / "pictures" / f"{picture}.svg").read_text("utf-8") == drawn
