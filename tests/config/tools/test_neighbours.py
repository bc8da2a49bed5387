"""Which unknown names are slips, and which are somebody else's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_settings import SettingsConfigDict

from dsa_config import DSASettings, LiveSettings, setting
from dsa_config.tools.neighbours import Neighbourhood, edits_between


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SGLANG_DSA_FUSE_TOP_K", "SGLANG_DSA_FUSE_TOPK"),
        ("SGLANG_DSA_FUSE_TPOK", "SGLANG_DSA_FUSE_TOPK"),
        ("sglang_dsa_fuse_topk", "SGLANG_DSA_FUSE_TOPK"),
        ("SGLANG_FUSE_DSA_TOPK", "SGLANG_DSA_FUSE_TOPK"),
        ("SGLANG-DSA-FUSE-TOPK", "SGLANG_DSA_FUSE_TOPK"),
        ("DSA_FUSE_TOPK", "SGLANG_DSA_FUSE_TOPK"),
        ("SGLANG_DSA_USE_AITER", "SGLANG_USE_AITER"),
        ("SGLANG_NSA_MQA_LOGITS_FREE_MEM_FRACTION", "SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION"),
        ("SGLANG_DSA_MQA_LOGITS_FRACTION", "SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION"),
        ("SGLANG_DSA_MQA_LOGITS_FREE_MEMORY_FRACTION", "SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION"),
        ("SGLANG_NSA_CONFIG", "SGLANG_DSA_CONFIG"),
        ("SGLANG_DSA_PROFIL", "SGLANG_DSA_PROFILE"),
    ],
)
def test_slips(name, meant):
    """Case, edits, swapped words, the words NSA and DSA, left-out words and the wrong prefix lead to the known name."""
    assert Neighbourhood(DSASettings).near(name) == meant


@pytest.mark.parametrize(
    "name",
    [
        "SGLANG_DSA_FUSE_TOPK",
        "SGLANG_NSA_FUSE_TOPK",
        "SGLANG_DSA_CONFIG",
        "HOME",
        "FUSE_TOPK",
        "SGLANG_USE_AITER_AR",
        "SGLANG_DSA_TRITON_PREFILL",
        "SGLANG_DSA_TOPK_BROADCAST",
        "SGLANG_DSA_USE_FUSED_METADATA_GENERATION",
        "SGLANG_DSA_TOPK_FLASHINFER_TIE_BREAK",
        "SGLANG_DSA_BACKEND",
        "SGLANG_DSA_" + "X" * 1000,
    ],
)
def test_others(name):
    """Known names, control variables, and other settings of the same engine are left alone."""
    assert Neighbourhood(DSASettings).near(name) is None


@pytest.mark.parametrize(
    "ending",
    [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_9000_TCP",
        "PORT_9000_TCP_ADDR",
        "PORT_1_UDP_PORT",
    ],
)
def test_service_links_of_kubernetes(ending):
    """A service that is called like a setting makes no slips."""
    near = Neighbourhood(DSASettings).near
    assert near(f"SGLANG_DSA_FLAGS_{ending}") is None
    assert near("SGLANG_DSA_FLAG_S") == "SGLANG_DSA_FLAGS"


def test_a_class_without_a_prefix():
    """Full names are compared all the same."""

    class Bare(LiveSettings):
        some_long_name: int = setting(1)

    class Own(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="Mixed_")
        some_long_name: int = setting(1)

    assert Neighbourhood(Bare).near("SOME_LONG_NAMES") == "SOME_LONG_NAME"
    assert Neighbourhood(Own).near("MIXED_SOME_LONG_NAME") == "Mixed_SOME_LONG_NAME"


@given(st.text("ABC_", max_size=8), st.text("ABC_", max_size=8))
def test_edits(left, right):
    """Edits are counted alike from both sides, are none for equals only, and at most the longer one's length."""
    edits = edits_between(left, right)
    assert edits == edits_between(right, left)
    assert (edits == 0) == (left == right)
    assert abs(len(left) - len(right)) <= edits <= max(len(left), len(right))
    assert edits_between("AB", "BA") == 1
