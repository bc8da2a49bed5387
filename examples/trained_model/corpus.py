"""The text that the model learns: Python sources that every installation of this project carries.

The standard library (PSF licence), torch and numpy (both BSD-3-Clause), without tests, IDLE, lib2to3 and what they
carry of others.
"""

from __future__ import annotations

import hashlib
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("numpy", "torch")
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "testing", "_vendor"}
LEFT_OUT |= {"idlelib", "idle_test", "lib2to3", "__pycache__"}
LEAST_BYTES = 1000
HELD_OUT = 20
"""One file in so many is held out, by the hash of its name."""


@dataclass(frozen=True)
class Corpus:
    """Files as bytes.

    Attributes:
        train: to learn from.
        held_out: to judge by; no file is in both.
    """

    train: list[bytes]
    held_out: list[bytes]

    def __str__(self) -> str:
        """How much it is, and which."""
        digest = hashlib.sha256(b"".join(self.train + self.held_out)).hexdigest()[:16]
        sizes = [sum(map(len, part)) for part in (self.train, self.held_out)]
        packages = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
        return (
            f"{len(self.train)} files of {sizes[0]} bytes, held out {len(self.held_out)} of {sizes[1]}; "
            f"standard library of Python {sysconfig.get_python_version()}, {packages}; sha256 {digest}"
        )


def installed_sources() -> Corpus:
    """The sources that are installed beside the Python that runs."""
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for root in _roots():
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root)
            if LEFT_OUT.isdisjoint(name.parts) and path.stat().st_size >= LEAST_BYTES:
                held_out = int(hashlib.sha256(str(name).encode()).hexdigest(), 16) % HELD_OUT == 0
                parts[held_out].append(path.read_bytes())
    return Corpus(*parts)


def _roots() -> Iterator[Path]:
    yield Path(sysconfig.get_path("stdlib"))
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        yield Path(spec.origin).parent


def passage(files: list[bytes], length: int, numbers: random.Random) -> bytes:
    """So many bytes of text, from a random place on, over the ends of files."""
    found = b""
    while len(found) < length:
        text = numbers.choices(files, [len(it) for it in files])[0] if not found else numbers.choice(files)
        begin = numbers.randrange(len(text)) if not found else 0
        found += text[begin : begin + length - len(found)]
    return found
