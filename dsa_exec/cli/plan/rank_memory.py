"""What of a rank's memory is for pools, and where each number of that came from."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from dsa_config import settings
from dsa_exec.cli.plan.asked import Asked
from dsa_exec.cli.plan.checkpoint import checkpoint_bytes
from dsa_exec.cli.plan.report import RankMemory
from dsa_exec.cli.show_report import count, size
from dsa_exec.core.errors import DsaError
from dsa_exec.memory.pool_memory import USUAL_FRACTION, static_bytes


@dataclass(frozen=True, slots=True)
class DividedMemory:
    """A rank's memory, and why it is divided like that.

    Attributes:
        memory: the parts.
        fraction: mem_fraction_static, exactly.
        fraction_origin: where it came from.
        weights_origin: where the size of the weights came from.
        notes: what was assumed.
    """

    memory: RankMemory
    fraction: Fraction
    fraction_origin: str
    weights_origin: str
    notes: tuple[str, ...]


class NoPoolMemory(DsaError, ValueError):
    """Weights leave no memory for pools: `memory`, `fraction`, and by how much they are too large, `missing_bytes`."""

    def __init__(self, memory: RankMemory, fraction: Fraction, fraction_origin: str) -> None:
        self.memory = memory
        self.fraction = fraction
        self.missing_bytes = memory.weights_bytes - memory.static_bytes + 1
        about = f" ({size(self.missing_bytes)})" if self.missing_bytes >= 1024 else ""
        static = f"{size(memory.gpu_bytes)} x {float(fraction):g} ({fraction_origin}) = {size(memory.static_bytes)}"
        changes = ["a larger --tp or --pp, which divides the weights"]
        least = -(-memory.weights_bytes * 1000 // memory.gpu_bytes)  # thousandths that the weights alone take
        if least < 1000:
            changes.insert(0, f"a --mem-fraction-static above {least / 1000:g}")
        super().__init__(
            f"no memory is left for pools: {static}, and weights take {size(memory.weights_bytes)}: "
            f"{count(self.missing_bytes, 'byte')}{about} too few; "
            f"wanted {', or '.join(changes)}"
        )


def divided(asked: Asked, config: Path) -> DividedMemory:
    """The memory of a rank, divided.

    Args:
        asked: what was asked for.
        config: the configuration's file, beside which the checkpoint's index may lie.

    Raises:
        NoPoolMemory: weights leave none.
        CheckpointError: the index cannot be used.
        SettingError: the setting mem_fraction_static cannot be read.
    """
    fraction, fraction_origin = static_fraction(asked.mem_fraction_static)
    weights, weights_origin, notes = _weights(asked, config)
    static = static_bytes(asked.gpu_bytes, fraction)
    memory = RankMemory(
        gpu_bytes=asked.gpu_bytes,
        static_bytes=static,
        weights_bytes=weights,
        weights_are_estimated=asked.weights_bytes is None,
        pools_bytes=max(0, static - weights),
        dynamic_bytes=asked.gpu_bytes - static,
    )
    if static <= weights:
        raise NoPoolMemory(memory, fraction, fraction_origin)
    return DividedMemory(memory, fraction, fraction_origin, weights_origin, notes)


def static_fraction(given: Fraction | None) -> tuple[Fraction, str]:
    """The share of a device for weights and pools, and where it came from: given, or of the setting, or the default.

    Raises:
        SettingError: the setting cannot be read.
    """
    if given is not None:
        return given, "--mem-fraction-static"
    setting = settings.explain("mem_fraction_static")
    if setting.value is None:
        return USUAL_FRACTION, "the default"
    return Fraction(repr(setting.value)), f"the setting mem_fraction_static, {setting.origin}"


def _weights(asked: Asked, config: Path) -> tuple[int, str, tuple[str, ...]]:
    if asked.weights_bytes is not None:
        return asked.weights_bytes, "--weights", ()
    found = checkpoint_bytes(config)
    if found is None:
        note = (
            "Weights count as 0, because no checkpoint index lies beside the configuration: --weights SIZE says them."
        )
        return 0, "not known: no --weights, and no checkpoint index", (note,)
    whole, index = found
    shares = asked.world.tp * asked.world.pp
    note = (
        f"Weights are estimated as an even share of the checkpoint's {size(whole)}: ranks keep copies of what is not "
        "split, and stages differ; --weights SIZE says what a rank really has."
    )
    return -(-whole // shares), f"{index}: {whole} bytes / (tp {asked.world.tp} * pp {asked.world.pp})", (note,)
