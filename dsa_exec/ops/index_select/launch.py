"""How the kernels of `index_select` are launched: parameters by rules of thumb."""

from __future__ import annotations

from dataclasses import dataclass

PROGRAMS = 264
"""Programs that an H100 runs at once: two on each of 132 multiprocessors."""

LEAST_SPAN = 8192
"""Keys of a span, at least: below that joining spans costs more than it brings."""


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernels. `rows`, `tile_keys`, `channels`, `capacity`, `block`: powers of two.

    Attributes:
        rows: query rows of a program.
        tile_keys: keys of a product.
        channels: channels of a product.
        capacity: candidates of a row, at least `k + tile_keys` and `k + block`.
        block: candidates, or results, that are looked at in one step where spans are joined and results written.
        programs: how many programs there are at most, each with memory of its own, if there is one span.
        span_keys: keys of a span, a multiple of `tile_keys`. With several spans each has a program for each group.
        stages: tiles in flight.
        warps: warps of a program.
    """

    rows: int
    tile_keys: int
    channels: int
    capacity: int
    block: int
    programs: int
    span_keys: int
    stages: int
    warps: int

    def refuses(self, heads: int, k: int) -> str | None:
        """Why a kernel that is launched so cannot select; None if it can."""
        powers = self.rows, self.tile_keys, self.channels, self.capacity, self.block
        if any(number < 1 or number & (number - 1) for number in powers):
            return "kernel_launch: rows, tile_keys, channels, capacity and block are powers of two"
        if self.capacity < k + max(self.tile_keys, self.block):
            return f"kernel_launch: capacity={self.capacity} has no room for {k} and a tile or block of candidates"
        if self.rows * power_of_two(heads) < 16 or self.tile_keys < 16 or self.channels < 32:
            return "kernel_launch: a product has 16 keys, 16 columns (rows times heads) and 32 channels at least"
        if self.span_keys < self.tile_keys or self.span_keys % self.tile_keys or self.programs < 1:
            return "kernel_launch: span_keys is a multiple of tile_keys, and there is one of the programs at least"
        return None

    def spans(self, key_count: int) -> int:
        """How many spans so many keys have."""
        return max(-(-key_count // self.span_keys), 1)

    def groups(self, unit_rows: int) -> int:
        """How many groups so many rows are that may share programs."""
        return -(-unit_rows // self.rows)

    def grid(self, groups: int, key_count: int) -> int:
        """How many programs are launched for so many groups in all."""
        spans = self.spans(key_count)
        return groups * spans if spans > 1 else min(groups, self.programs)

    def scratch_bytes(self, groups: int, key_count: int) -> int:
        """Bytes of the candidates of all programs, and of how many each has."""
        return self.grid(groups, key_count) * self.rows * (8 * self.capacity + 4)


def portable_launch(
    unit_rows: int, groups_of: int, heads: int, channels: int, key_count: int, k: int, element_bytes: int
) -> PortableLaunch:
    """The launch parameters for a call.

    Args:
        unit_rows: query rows that may share a program: all of gathered keys, those of a request of cached ones.
        groups_of: how many times there are so many.
        heads: index heads.
        channels: channels of a head.
        key_count: keys, or columns.
        k: how many are selected.
        element_bytes: of a channel as it is multiplied.
    """
    padded_heads = power_of_two(heads)
    # Without matrix units, or where f32 takes many registers, small parts.
    columns, part, stages, warps = (64, 32, 2, 8) if element_bytes == 4 else (256, 128, 3, 4)
    rows = max(min(columns // padded_heads, power_of_two(unit_rows)), 1)
    rows = max(rows, 16 // padded_heads)  # a product has 16 columns at least
    tile_keys, block = 64, 256
    groups = -(-unit_rows // rows) * groups_of
    spans = max(min(PROGRAMS // max(groups, 1), -(-key_count // LEAST_SPAN)), 1)
    span_keys = max(-(-key_count // (spans * tile_keys)), 1) * tile_keys
    return PortableLaunch(
        rows=rows,
        tile_keys=tile_keys,
        channels=min(max(power_of_two(channels), 32), part),
        capacity=power_of_two(max(2 * k, k + max(tile_keys, block), 1024)),
        block=block,
        programs=PROGRAMS,
        span_keys=span_keys,
        stages=stages,
        warps=warps,
    )


def power_of_two(least: int) -> int:
    """The least power of two that is no less."""
    return 1 << max(least - 1, 0).bit_length()
