"""A hook of mkdocs: files of the repository that pages link to become part of the site.

In the repository a page says `../examples/plan/what_fits.py`, and that is where the file is. A site knows the files
under docs/ only, so that the build would fail, and an address of a host is none of this project's. So each file that a
page links to is taken into `repository/` in the site, and the link is made to lead there. Of Markdown and of source
text a page is made, which a browser shows; anything else is copied as it is. A link to a file that is not there stays,
and ends a strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

FOLDER = "repository"
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)(#[^)\s]*)?(\))")
LANGUAGES = {".json": "json", ".py": "python", ".toml": "toml", ".yml": "yaml"}
LONGEST_SHOWN_BYTES = 64 * 1024
"""Longer text is copied: as a page it would be slow to open, and nobody reads it."""


def on_files(files: Files, config: Any) -> Files:
    """Add the files that pages link to."""
    root = Path(config.docs_dir).parent
    for page in list(files.documentation_pages()):
        for _, target, _, _ in LINK.findall(page.content_string):
            path = _in_repository(page.src_uri, target)
            if path is None or not (root / path).is_file() or files.get_file_from_path(_in_site(root, path)):
                continue
            files.append(_file(root, path, config))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make the links to those files lead into the site."""
    root = Path(config.docs_dir).parent

    def moved(link: re.Match[str]) -> str:
        path = _in_repository(page.file.src_uri, link[2])
        if path is None or files.get_file_from_path(uri := _in_site(root, path)) is None:
            return link[0]
        return f"{link[1]}{posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{link[3] or ''}{link[4]}"

    return LINK.sub(moved, markdown)


def _in_repository(page: str, target: str) -> str | None:
    """The path from the repository's root of what a page under docs/ links to; None where it is under docs/ too."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path.startswith(("docs/", "..")) else path


def _in_site(root: Path, path: str) -> str:
    """Where the site has a file of the repository, as a source of mkdocs."""
    uri = f"{FOLDER}/{path}"
    return f"{uri}.md" if _is_shown(root / path) else uri


def _is_shown(file: Path) -> bool:
    return file.suffix in LANGUAGES and file.is_file() and file.stat().st_size <= LONGEST_SHOWN_BYTES


def _file(root: Path, path: str, config: Any) -> File:
    file, uri = root / path, _in_site(root, path)
    if not _is_shown(file):
        return File.generated(config, uri, abs_src_path=str(file), inclusion=InclusionLevel.NOT_IN_NAV)
    block = f"````{LANGUAGES[file.suffix]}\n{file.read_text('utf-8')}````\n"
    page = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n{block}"
    return File.generated(config, uri, content=page, inclusion=InclusionLevel.NOT_IN_NAV)
