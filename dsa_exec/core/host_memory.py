"""The memory of the machine, or of the container that the process runs in, as the operating system tells it."""

from __future__ import annotations

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")

# Where limit, use and the page cache that can be given up are told: version 2 of control groups, then version 1.
_CONTAINERS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def host_total_bytes() -> int:
    """Total bytes; a container may have less than its machine."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit_file, used_file, _, _ in _CONTAINERS:
        if (limit := _number(CGROUP / limit_file)) is not None and (CGROUP / used_file).exists():
            return min(total, limit)
    return total


def host_memory() -> tuple[int, int]:
    """Total and available bytes as of now; a container may have less of both than its machine."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    total = page_bytes * os.sysconf("SC_PHYS_PAGES")
    available = _field(MEMINFO, "MemAvailable:")
    if available is not None:
        free = available * 1024
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * page_bytes if "SC_AVPHYS_PAGES" in os.sysconf_names else total
    for limit_file, used_file, stat_file, reclaimable in _CONTAINERS:
        limit, used = _number(CGROUP / limit_file), _number(CGROUP / used_file)
        if limit is not None and used is not None:
            # Files that were read count as used, and are dropped when memory is wanted.
            used = max(0, used - (_field(CGROUP / stat_file, reclaimable) or 0))
            return min(total, limit), min(free, max(0, limit - used))
    return total, free


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not there, or no limit ("max")
        return None


def _field(file: Path, name: str) -> int | None:
    """The number after a name that begins a line."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    found = (line.split() for line in lines)
    return next((int(words[1]) for words in found if len(words) > 1 and words[0] == name), None)
