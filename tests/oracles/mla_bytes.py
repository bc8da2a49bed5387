"""The 656 bytes of a token, straight from the description: 512 e4m3, four f32 scales, 64 bf16."""

from __future__ import annotations

from oracles.number_formats import bf16_value, decode, f32_value


def read_token(cache, slot: int) -> list[float]:
    """Latent and RoPE part of a slot, dequantised."""
    if cache.layout.format == "model":
        return cache.data[slot].float().tolist()
    raw = bytes(cache.data[slot].cpu().tolist())
    scales = [f32_value(raw[512 + 4 * group : 516 + 4 * group]) for group in range(4)]
    latent = [decode(raw[channel]) * scales[channel // 128] for channel in range(512)]
    rope = [bf16_value(raw[528 + 2 * channel : 530 + 2 * channel]) for channel in range(64)]
    return latent + rope
