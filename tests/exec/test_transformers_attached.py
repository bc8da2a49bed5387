"""Blocks of `attached` in several threads and in each other: a model is enabled until the last of them ends."""

from __future__ import annotations

import threading

import pytest
import torch
from tiny_models import UNQUANTISED, build, prompt

from dsa_config import settings
from dsa_exec.integrations.transformers import NotSupported, attached, disable, enable, is_enabled

TOKENS = torch.tensor([prompt(0, 90)])


@pytest.fixture
def model():
    return build("deepseek_v32")


def test_the_first_thread_to_end_does_not_disable_the_others(model):
    """One ends while another is between two passes; the other has its tokens, and then the model is plain."""
    with torch.no_grad():
        plain = model(TOKENS).logits
    other_has_ended, both_are_in = threading.Event(), threading.Barrier(2, timeout=60)
    ended: list[bool] = []

    def short() -> None:
        with attached(model):
            both_are_in.wait()
        ended.append(is_enabled(model))
        other_has_ended.set()

    thread = threading.Thread(target=short)
    thread.start()
    with attached(model), torch.no_grad(), settings.override(**UNQUANTISED):
        both_are_in.wait()
        assert other_has_ended.wait(60)
        assert is_enabled(model)
        torch.testing.assert_close(model(TOKENS).logits, plain, atol=1e-4, rtol=1e-4)
    thread.join()
    assert ended == [True]
    assert not is_enabled(model)


def test_many_threads_generate_at_once(model):
    """Each enables and disables as it comes and goes, and has the tokens of plain transformers."""
    counts = (2, 9, 5)
    plain = model.generate(TOKENS, max_new_tokens=max(counts), do_sample=False)
    got: dict[int, object] = {}

    def work(new: int) -> None:
        try:
            with attached(model), settings.override(**UNQUANTISED):
                got[new] = model.generate(TOKENS, max_new_tokens=new, do_sample=False)[0].tolist()
        except Exception as error:
            got[new] = error

    threads = [threading.Thread(target=work, args=(new,)) for new in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {new: plain[0, : TOKENS.shape[1] + new].tolist() for new in counts}
    assert not is_enabled(model)


def test_a_block_of_a_part_within_one_of_the_whole(model):
    """The decoder by itself is held too."""
    whole, part = attached(model), attached(model.model)
    whole.__enter__()
    part.__enter__()
    whole.__exit__(None, None, None)
    assert is_enabled(model)
    part.__exit__(None, None, None)
    assert not is_enabled(model)


def test_enable_and_disable_within_a_block_have_the_last_word(model):
    """What was asked for by name is not undone by the end of a block."""
    with attached(model):
        enable(model)
    assert is_enabled(model)
    with attached(model):
        disable(model)
        assert not is_enabled(model)
        with attached(model):
            assert is_enabled(model)
        assert not is_enabled(model)
    assert not is_enabled(model)


def test_a_block_that_breaks_off_or_is_refused(model):
    """An error within ends the block; a model that is refused is not held."""
    with pytest.raises(KeyError), attached(model):
        raise KeyError
    assert not is_enabled(model)
    hook = model.model.layers[0].self_attn.kv_b_proj.register_forward_hook(lambda *_: None)
    with pytest.raises(NotSupported, match="kv_b_proj has a hook"), attached(model):
        pass
    hook.remove()
    with attached(model):
        assert is_enabled(model)
    assert not is_enabled(model)
