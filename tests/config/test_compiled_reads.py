"""Reads inside a compiled region."""

from __future__ import annotations

import pytest
import torch

from dsa_config import settings


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_function_follows_the_setting(monkeypatch):
    """fullgraph=True: environment, set and override are all seen by the next call."""

    @torch.compile(fullgraph=True, backend="eager")
    def double_if_fused(x):
        return x * 2 if settings.fuse_topk else x

    one = torch.ones(1)
    seen = [double_if_fused(one).item()]
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    seen.append(double_if_fused(one).item())
    monkeypatch.delenv("SGLANG_DSA_FUSE_TOPK")
    seen.append(double_if_fused(one).item())
    settings.set(fuse_topk=False)
    seen.append(double_if_fused(one).item())
    with settings.override(fuse_topk=True):
        seen.append(double_if_fused(one).item())
    seen.append(double_if_fused(one).item())
    assert seen == [2, 1, 2, 1, 2, 1]
