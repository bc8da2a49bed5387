"""Code written for SGLang's `envs` runs unchanged; overrides are scoped and end on every path."""

import os

from dsa_config import settings
from dsa_config.compat.sglang import envs

print("default:", envs.SGLANG_DSA_FUSE_TOPK.get(), "set:", envs.SGLANG_DSA_FUSE_TOPK.is_set())

envs.SGLANG_DSA_FUSE_TOPK.set(False)  # writes the variable, so that children inherit it
print("variable:", os.environ["SGLANG_DSA_FUSE_TOPK"], "setting:", settings.fuse_topk)
envs.SGLANG_DSA_FUSE_TOPK.clear()

try:
    with envs.SGLANG_DSA_FUSE_TOPK.override(False):
        print("in the override:", settings.fuse_topk, "in the environment:", "SGLANG_DSA_FUSE_TOPK" in os.environ)
        raise KeyError("the body fails")
except KeyError:
    print("afterwards:", settings.fuse_topk)

try:
    if envs.SGLANG_DSA_FUSE_TOPK:
        print("never reached")
except RuntimeError as error:
    print(error)
