"""What each row may see, as two numbers a row."""

from __future__ import annotations

import pytest
import torch
from transformers.masking_utils import and_masks, causal_mask_function, sliding_window_causal_mask_function

from dsa_exec.integrations.transformers import NotSupported
from dsa_exec.integrations.transformers.windows import visible_windows


def test_causal_rows_see_up_to_themselves():
    """From the first token that is no padding up to and with the row's own."""
    mask = torch.tensor([[True] * 5, [False, False, True, True, True]])
    windows = visible_windows(2, 2, 3, causal_mask_function, mask)
    assert windows.tolist() == [[[[0, 4], [0, 5]]], [[[2, 4], [2, 5]]]]


@pytest.mark.parametrize(
    "mask_function",
    [
        sliding_window_causal_mask_function(4),
        and_masks(causal_mask_function, lambda batch, head, q, kv: q // 3 == kv // 3),
    ],
    ids=["sliding", "packed"],
)
def test_other_masks_are_refused(mask_function):
    """Sliding windows and packed sequences see less than two numbers a row can say."""
    with pytest.raises(NotSupported, match="only causal masks without packed sequences"):
        visible_windows(1, 4, 0, mask_function)


def test_a_mask_that_is_longer_than_what_was_read():
    """What a mask says of tokens to come does not matter yet."""
    mask = torch.tensor([[False, True, True, False, False]])
    assert visible_windows(1, 3, 0, causal_mask_function, mask).tolist() == [[[[1, 1], [1, 2], [1, 3]]]]
