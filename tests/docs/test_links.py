"""Links of README and docs lead somewhere, as files of the repository: the site has a check of its own."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1$", re.M | re.S)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What headings can be linked by: words in lower case, blanks as dashes, no punctuation."""
    headings = re.findall(r"^#{1,6} +(.+)$", prose(page), re.M)
    return {
        re.sub(r"[^\w -]", "", unicodedata.normalize("NFC", it)).strip().lower().replace(" ", "-") for it in headings
    }


def test_links_lead_to_files():
    """Every relative link is to what is there; those of the site's pages to a file, since a site has no folders."""
    for page in PAGES:
        for target, _ in LINK.findall(prose(page)):
            if "://" in target:  # another project's page, which no test can look at
                continue
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            assert page.name == "README.md" or target == "" or (page.parent / target).is_file(), (
                f"{page.name}: {target}"
            )


def test_anchors_lead_to_headings():
    """Within the page, or within the page that is linked."""
    for page in PAGES:
        for target, anchor in LINK.findall(prose(page)):
            if anchor:
                of = page if target == "" else (page.parent / target).resolve()
                assert anchor in anchors(of), f"{page.name}: {target}#{anchor}"
