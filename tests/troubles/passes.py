"""Passes of a model of transformers that our attention does not take, and caches that it does not take with them."""

from __future__ import annotations

import contextlib

import torch
from tiny_models import build
from transformers import DynamicCache
from transformers.cache_utils import EncoderDecoderCache

from dsa_exec.integrations.transformers import DsaCache, attached
from troubles import produces
from troubles.models import PROMPT, tiny


def _ran(cache=None, tokens=PROMPT, **arguments):
    """The tiny model's output, on our attention."""
    with attached(tiny()), torch.no_grad():
        return tiny()(tokens, past_key_values=cache, **arguments)


def _fixed(max_tokens: int = 16) -> DsaCache:
    return DsaCache.for_model(tiny(), max_tokens=max_tokens)


@produces("NotSupported")
def attention_weights_as_output():
    _ran(output_attentions=True)


@produces("NotSupported")
def dropout_in_training():
    model = build("deepseek_v32", attention_dropout=0.1).train()
    with attached(model):
        model(PROMPT)


@produces("NotSupported")
def packed_sequences():
    _ran(position_ids=torch.tensor([[0, 1, 0, 1]]), use_cache=False)


@produces("NotSupported")
def a_mask_of_the_caller():
    _ran(attention_mask=torch.ones(1, 1, 4, 4, dtype=torch.bool))


@produces("NotSupported")
def a_mask_of_new_tokens_alone():
    cache = _fixed()
    _ran(cache)
    _ran(cache, attention_mask=torch.ones(1, 4))


@produces("NotSupported")
def padding_on_the_right():
    _ran(attention_mask=torch.tensor([[1, 1, 1, 0]]))


@produces("NotSupported")
def padding_that_comes_later():
    cache = _fixed()
    _ran(cache)
    _ran(cache, tokens=PROMPT[:, :1], attention_mask=torch.tensor([[0, 0, 1, 1, 1]]))


@produces("NotSupported")
def training_over_an_fp8_cache():
    with attached(tiny()):
        tiny()(PROMPT, past_key_values=_fixed()).logits.sum().backward()


@produces("NotSupported")
def a_cache_that_another_attention_filled():
    cache = DynamicCache(config=tiny().config)
    with torch.no_grad():
        tiny()(PROMPT, past_key_values=cache)
    _ran(cache)


@produces("NotSupported")
def a_cache_of_another_class():
    config = tiny().config
    _ran(EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config)))


@produces("NotSupported")
def an_offloaded_cache():
    _ran(DynamicCache(config=tiny().config, offloading=True))


@produces("NotSupported")
def a_cache_of_another_model():
    _ran(DsaCache.for_model(build("deepseek_v32")))


@produces("NotSupported")
def a_pass_that_broke_off():
    cache = DsaCache.for_model(tiny())
    breaks = tiny().model.layers[1].register_forward_pre_hook(_interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        _ran(cache)
    breaks.remove()
    _ran(cache)


def _interrupt(*_):
    raise KeyboardInterrupt


@produces("NotSupported")
def other_requests_in_a_cache_of_fixed_size():
    cache = _fixed()
    _ran(cache)
    cache.batch_repeat_interleave(2)


@produces("NotSupported")
def pages_before_there_are_any():
    return DsaCache.for_model(tiny()).page_table


@produces("NotSupported")
def rotated_keys_that_nothing_quantises(settings_override):
    settings_override(index_k_format="model")
    DsaCache.for_model(tiny(), max_tokens=16, hadamard=True)


@produces("RangeError")
def more_requests_than_the_cache_has():
    _ran(_fixed(), tokens=PROMPT.expand(2, -1))


@produces("ShapeError")
def a_mask_of_another_batch():
    _ran(tokens=PROMPT.expand(2, -1), attention_mask=torch.ones(1, 4))


@produces("written by our attention")
def a_cache_of_ours_for_plain_attention():
    try:
        tiny()(PROMPT, past_key_values=DsaCache.for_model(tiny()))
    except TypeError as error:
        return error


@produces("a compiled step has more tokens")
def a_compiled_step_beyond_the_room():
    cache = _fixed(max_tokens=4)
    step = torch.compile(tiny().forward, backend="eager")
    _ran(cache)
    with attached(tiny()), torch.no_grad():
        try:
            step(input_ids=PROMPT[:, :1], past_key_values=cache)
        except RuntimeError as error:
            return error
