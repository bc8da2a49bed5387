"""What a captured graph depends on: recorded while it is built, checked before it is replayed."""

from dsa_config import settings
from dsa_config.tracking import Stale


def build() -> str:
    """Stands in for the capture of a CUDA graph, which freezes every setting that it reads."""
    return f"graph with {'fused' if settings.fuse_topk else 'separate'} top-k"


with settings.record_reads() as recorded:
    graph = build()
guard = recorded.guard(graph)
print("depends on", dict(recorded.reads))

guard.check()
print("replayed:", graph)

settings.set(fuse_topk=False)
try:
    guard.check()
except Stale as stale:
    print("rebuilt, because", [change.name for change in stale.changes], "changed")
    graph = build()
print("now:", graph)
