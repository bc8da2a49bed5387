"""What a machine does in a time: bandwidths, and the parts of a layer that no record of this project has measured."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

FILE = "machine.json"
US = 1e6


@dataclass(frozen=True, slots=True)
class Machine:
    """The numbers of a machine; each is measured, of a data sheet, or assumed, as `machine.json` says.

    Attributes:
        nvlink_gb_s: of a GPU to the others of its node, in 10^9 bytes a second.
        network_gb_s: of a GPU to those of other nodes.
        node_gpus: GPUs of a node.
        nvlink_us: what a collective within a node takes besides its bytes.
        network_us: the same across nodes.
        hbm_gb_s: of a GPU's own memory.
        fp8_tflops: of its matrix products.
        gemm_share: share of both that matrix products reach.
        layer_us: what a layer takes besides what is counted.
    """

    nvlink_gb_s: float
    network_gb_s: float
    node_gpus: int
    nvlink_us: float
    network_us: float
    hbm_gb_s: float
    fp8_tflops: float
    gemm_share: float
    layer_us: float

    def product_us(self, weight_bytes: float, flops: float) -> float:
        """Matrix products that read so many bytes of weights and calculate so much: what takes longer of the two."""
        read, calculate = weight_bytes / (self.hbm_gb_s * 1e9), flops / (self.fp8_tflops * 1e12)
        return max(read, calculate) / self.gemm_share * US

    def gather_us(self, ranks: int, bytes_: float, span: int) -> float:
        """Ranks get what each of them has, so many bytes together.

        Args:
            ranks: of the group.
            bytes_: that each has in the end.
            span: GPUs from the first rank of the group to its last.
        """
        return self._us((ranks - 1) / ranks * bytes_, span) if ranks > 1 else 0.0

    def reduce_us(self, ranks: int, bytes_: float, span: int) -> float:
        """Ranks get the sum of what each has, so many bytes (all-reduce)."""
        return self._us(2 * (ranks - 1) / ranks * bytes_, span) if ranks > 1 else 0.0

    def scatter_us(self, ranks: int, bytes_: float, span: int) -> float:
        """Each rank sends so many bytes, evenly to all of the group (all-to-all); within a node NVLink takes them."""
        if ranks == 1:
            return 0.0
        if span <= self.node_gpus:
            return self._us((ranks - 1) / ranks * bytes_, span)
        return self._us((span - self.node_gpus) / span * bytes_, span)

    def send_us(self, bytes_: float, span: int) -> float:
        """One rank sends to another."""
        return self._us(bytes_, span)

    def _us(self, bytes_: float, span: int) -> float:
        if span <= self.node_gpus:
            return self.nvlink_us + bytes_ / (self.nvlink_gb_s * 1e9) * US
        return self.network_us + bytes_ / (self.network_gb_s * 1e9) * US


@functools.cache
def origins() -> dict[str, str]:
    """Where each number of the machine is from."""
    return {name: origin for name, (_, origin) in _document().items()}


@functools.cache
def machine() -> Machine:
    """H100s, eight a node."""
    return Machine(**{name: value for name, (value, _) in _document().items()})


@functools.cache
def _document() -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = json.loads((resources.files("dsa_exec.planning") / FILE).read_text("utf-8"))
    return found
