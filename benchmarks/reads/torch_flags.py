"""A configuration module as torch wants them: a file of its own, whose annotated names become its flags."""

import sys
from typing import Any

from torch.utils._config_module import Config, install_config_module

fuse_topk: bool = Config(default=True, env_name_default="BENCH_TORCH_FUSE_TOPK")


def installed() -> Any:
    """This module, made a configuration module."""
    module = sys.modules[__name__]
    if not hasattr(module, "patch"):
        install_config_module(module)
    return module
