"""The widths of cached tokens, and V4's window. The vendor and transformers write V4's under different keys."""

from __future__ import annotations

from fractions import Fraction

from dsa_exec.memory.geometry_keys import ConfigKeys

WIDEST = 65_536
"""More channels or heads than any model has."""

_LONGEST_WINDOW = 2**20


def mla_widths(keys: ConfigKeys) -> tuple[int, int]:
    """Channels of the latent (kv_lora_rank) and of the RoPE part of a cached token.

    Raises:
        GeometryError: a value is out of range.
    """
    latent_dim = keys.number("kv_lora_rank", low=1, high=WIDEST, default=512)
    return latent_dim, keys.number("qk_rope_head_dim", low=1, high=WIDEST, default=64)


def v4_widths(keys: ConfigKeys) -> tuple[int, int]:
    """Channels without RoPE (head_dim - qk_rope_head_dim) and with RoPE of a cached token.

    transformers writes `partial_rotary_factor` where the vendor writes `qk_rope_head_dim`.

    Raises:
        GeometryError: a value is out of range, or the RoPE part leaves nothing of head_dim.
    """
    head_dim = keys.number("head_dim", low=2, high=WIDEST, default=512)
    factor = keys.get("partial_rotary_factor")
    if keys.get("qk_rope_head_dim") is None and factor is not None:
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor < 1:
            raise keys.refusal("partial_rotary_factor", "a number between 0 and 1")
        rope_dim = int(Fraction(str(factor)) * head_dim)
        if not 1 <= rope_dim < head_dim:
            raise keys.refusal("partial_rotary_factor", f"a share of head_dim={head_dim} that is at least one channel")
    else:
        rope_dim = keys.number("qk_rope_head_dim", low=1, high=WIDEST, default=64)
        if rope_dim >= head_dim:
            raise keys.refusal("qk_rope_head_dim", f"less than head_dim={head_dim}, of which it is a part", rope_dim)
    return head_dim - rope_dim, rope_dim


def v4_window(keys: ConfigKeys) -> int:
    """Tokens of the sliding window: `window_size` or `sliding_window`.

    Raises:
        GeometryError: it is out of range, or both are there and differ.
    """
    window = keys.get("window_size")
    if window is None:
        return keys.number("sliding_window", low=1, high=_LONGEST_WINDOW, default=128)
    window = keys.number("window_size", low=1, high=_LONGEST_WINDOW)
    if keys.get("sliding_window") not in (None, window):
        raise keys.refusal("sliding_window", f"{window}, as window_size says, or only one of the two")
    return window
