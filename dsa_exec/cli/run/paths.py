"""Settings of attention that no batch of a run could follow, told before anything is loaded."""

from __future__ import annotations

from dsa_config import settings
from dsa_exec.cli.run.errors import RunError

NAMES = ("prefill_attention", "decode_attention", "kv_format", "prefill_dense_attn_kv_len_threshold")


def require_paths() -> None:
    """Check that prefill and decode have a way over the cache that the settings allocate.

    Raises:
        RunError: they have none. Says which settings are in conflict, and where each comes from.
    """
    from dsa_exec.core.errors import UnsupportedPath
    from dsa_exec.layouts.mla_kv import MlaLayout
    from dsa_exec.runtime.attention_path import AttentionSettings, validate_paths

    layout = MlaLayout(settings.kv_format, latent_dim=512, rope_dim=64)  # of whatever size: only its format counts
    try:
        validate_paths(layout, AttentionSettings.now())
    except UnsupportedPath as error:
        told = str(error)
        known = (settings.explain(name) for name in NAMES if name in told)
        origins = ", ".join(f"{it.name} from {it.origin}" for it in known if it.source != "default")
        raise RunError(f"{told}; set here: {origins}") from None
