"""A flag file at work: which requests a rollout reaches, and what a rule says for a model and a layer.

Needs `pip install 'dsa[flags]'`. Run it from anywhere: python examples/flags/rollout.py
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dsa_config import DSASettings
from dsa_config.flags import FlagContext
from dsa_config.flags.rules import load_flags


def main() -> None:
    """Ask the flags of `flags.json` on behalf of several callers."""
    flags = load_flags(Path(__file__).with_name("flags.json"), DSASettings)
    process = FlagContext(arch="sm90", rank=0)

    reached: Counter[str] = Counter()
    for number in range(4000):
        found = flags.evaluate("fuse_topk", process.merged({"targetingKey": f"request-{number}"}))
        reached[found.variant or "" if found else ""] += 1
    print(f"fuse_topk on sm90: {dict(reached)}")
    if not 900 < reached["separate"] < 1100:
        raise SystemExit("25 % of 4,000 requests are about 1,000")

    for model, layer in (("glm-5", 3), ("deepseek-v3.2", 50), ("deepseek-v3.2", 3)):
        found = flags.evaluate("mqa_logits_max_chunk_bytes", FlagContext(model=model, layer=layer))
        print(f"{model}, layer {layer}: {f'{found.value} from {found.origin}' if found else 'no word on it'}")

    if flags.evaluate("debug_log_decisions", process) is not None:
        raise SystemExit("a flag that is disabled says nothing")


if __name__ == "__main__":
    main()
