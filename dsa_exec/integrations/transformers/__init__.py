"""Hugging Face transformers: our indexer, attention and caches in `deepseek_v32` and `glm_moe_dsa` models.

model = load_checkpoint(path, device).model
enable(model)
model.generate(ids, max_new_tokens=64)
"""

from transformers.utils import logging

from dsa_exec.integrations.transformers.cache import DsaCache
from dsa_exec.integrations.transformers.checkpoint import Loaded, load_checkpoint, load_tiny
from dsa_exec.integrations.transformers.enabling import attached, disable, enable, is_enabled
from dsa_exec.integrations.transformers.errors import CheckpointError, NotFinite, NotSupported


def be_quiet() -> None:
    """Keep transformers' own progress bars and notices off the screen of a command of ours."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


__all__ = [
    "CheckpointError",
    "DsaCache",
    "Loaded",
    "NotFinite",
    "NotSupported",
    "attached",
    "be_quiet",
    "disable",
    "enable",
    "is_enabled",
    "load_checkpoint",
    "load_tiny",
]
