"""The byte layouts of DeepSeek-V4's pools."""

from __future__ import annotations

import pytest

from dsa_exec.core.errors import LayoutError
from dsa_exec.layouts.dsv4 import Fp4IndexLayout, StateLayout, V4KvLayout


@pytest.mark.parametrize(
    ("format", "page_tokens", "token_bytes", "page_bytes"),
    [
        ("fp8", 128, 584, 74880),
        ("fp8", 64, 584, 37440),
        ("fp8", 2, 584, 1728),
        ("fp8", 1, 584, 1152),
        ("bf16", 128, 1024, 131072),
        ("fp8-raw", 1, 512, 512),
    ],
)
def test_kv_pages(format, page_tokens, token_bytes, page_bytes):
    """584 bytes a token in fp8, whose pages are padded to multiples of 576; the other formats have no padding."""
    layout = V4KvLayout(format, page_tokens)
    assert (layout.token_bytes, layout.page_bytes) == (token_bytes, page_bytes)


@pytest.mark.parametrize(
    ("nope", "rope", "token_bytes"), [(448, 64, 584), (64, 32, 136), (512, 0, 520), (128, 128, 392)]
)
def test_kv_tokens_of_other_widths(nope, rope, token_bytes):
    """e4m3 and bf16 channels and a scale for each 64 e4m3 ones, filled up to a multiple of 8 bytes."""
    assert V4KvLayout("fp8", 1, nope, rope).token_bytes == token_bytes


def test_layouts_as_one_word():
    """Each layout says itself in a word that no other layout says."""
    words = [V4KvLayout().spec, V4KvLayout("bf16").spec, Fp4IndexLayout().spec, StateLayout(8, 2048).spec]
    assert words == ["dsv4/fp8/128/448/64", "dsv4/bf16/128/448/64", "fp4/64/128", "state/8/2048/4"]


def test_keys_and_states():
    """68 bytes a key in fp4, four or two a number of state."""
    assert (Fp4IndexLayout().token_bytes, Fp4IndexLayout(32).page_bytes) == (68, 32 * 68)
    assert (StateLayout(8, 512).token_bytes, StateLayout(8, 512, 2).page_bytes) == (2048, 8192)


@pytest.mark.parametrize(
    ("make", "field", "got"),
    [
        (lambda: V4KvLayout("fp4"), "format", "'fp4'"),
        (lambda: V4KvLayout(page_tokens=0), "page size", 0),
        (lambda: V4KvLayout(nope_dim=100), "head_dim - qk_rope_head_dim", 100),
        (lambda: Fp4IndexLayout(page_tokens=0), "page size", 0),
        (lambda: Fp4IndexLayout(head_dim=100), "index_head_dim", 100),
        (lambda: Fp4IndexLayout(head_dim=0), "index_head_dim", 0),
        (lambda: StateLayout(0, 8), "page size", 0),
        (lambda: StateLayout(8, 0), "width", 0),
        (lambda: StateLayout(8, 8, 8), "element_bytes", 8),
    ],
)
def test_layouts_that_cannot_be(make, field, got):
    """What cannot be laid out is named with its value."""
    with pytest.raises(LayoutError) as caught:
        make()
    assert (caught.value.field, caught.value.got) == (field, got)
