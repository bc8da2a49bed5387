"""Until when a change of a format is too late for caches: while one is there that the setting decided about."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import warnings

import pytest
import torch
from tiny_models import build, prompt

from dsa_config import DSASettings, TooLate, settings
from dsa_config.declared import settings_of
from dsa_exec import IndexKCache, MlaCache
from dsa_exec.caches.allocation import INDEX_K_SETTINGS, MLA_SETTINGS
from dsa_exec.integrations.transformers import DsaCache, attached, enable
from dsa_exec.runtime.capture import capture_step

WHERE = {"device": "cpu", "model_dtype": torch.bfloat16}


def check_nothing_is_too_late(**values):
    with warnings.catch_warnings():
        warnings.simplefilter("error", TooLate)
        settings.set(**values)
    assert [settings.explain(name).warnings for name in values] == [()] * len(values)


def test_every_setting_that_waits_for_an_allocation_decides_about_a_cache():
    """None is forgotten in the lists that the caches give."""
    waiting = {name for name, it in settings_of(DSASettings).items() if "allocate" in it.effect}
    assert {*MLA_SETTINGS, *INDEX_K_SETTINGS} == waiting


def test_a_change_is_too_late_for_caches_that_are_there(settings_set):
    """Not for one that is gone, nor for one that another setting decided about."""
    settings_set(kv_format="fp8", index_k_format="fp8")
    MlaCache.allocate(64, **WHERE)
    cache = IndexKCache.allocate(64, **WHERE)
    check_nothing_is_too_late(kv_format="model")
    with pytest.warns(TooLate, match="an index-K cache of 64 slots"):
        settings.set(index_k_format="model")
    del cache
    check_nothing_is_too_late(index_k_format="fp8")


@pytest.mark.parametrize("kind", [MlaCache, IndexKCache])
def test_a_cache_that_grows_or_is_copied_is_still_there(kind, settings_set):
    """What takes its place holds the same allocation; one that was loaded from a file is of no allocation here."""
    settings_set(kv_format="fp8", index_k_format="fp8")
    cache = kind.allocate(64, **WHERE)
    loaded = pickle.loads(pickle.dumps(cache))
    grown = dataclasses.replace(cache, data=torch.cat([cache.data, cache.data]))
    cache = copy.deepcopy(grown)
    del grown
    name = "kv_format" if kind is MlaCache else "index_k_format"
    with pytest.warns(TooLate, match="cache of 64 slots was allocated"):
        settings.set(**{name: "model"})
    del cache
    check_nothing_is_too_late(**{name: "fp8"})
    assert loaded.slots == 64


def test_caches_of_a_pass_or_a_generation_are_gone_after_it(settings_set):
    """The next one takes the new formats, so that nothing is too late, also before Python has looked for cycles."""
    settings_set(kv_format="fp8", index_k_format="fp8")
    model, tokens = build("deepseek_v32"), torch.tensor([prompt(0, 20)])
    with attached(model), torch.no_grad():
        model(tokens)
        gc.disable()
        try:
            model.generate(tokens, max_new_tokens=3, do_sample=False)
            check_nothing_is_too_late(kv_format="model", index_k_format="model")
        finally:
            gc.enable()


@pytest.mark.filterwarnings("ignore::dsa_config.TooLate")
def test_an_allocation_is_told_at_the_line_of_whoever_ran_the_model(settings_set):
    """Not at a line of torch or transformers, through which it came here; and a cache that has grown still is there."""
    settings_set(kv_format="fp8", index_k_format="fp8")
    model, tokens = build("deepseek_v32"), torch.tensor([prompt(0, 400)])
    enable(model)
    cache = DsaCache.for_model(model)
    with torch.no_grad():
        model(tokens[:, :20], past_key_values=cache)
        slots = cache.layers[0].mla.slots
        model.generate(tokens, max_new_tokens=2, do_sample=False, past_key_values=cache)
    assert cache.layers[0].mla.slots > slots
    settings.set(kv_format="model", index_k_format="model")
    (of_kv,), (of_keys,) = (settings.explain(it).warnings for it in ("kv_format", "index_k_format"))
    assert f"an MLA cache of {slots} slots was allocated at {__file__}:" in of_kv
    assert f"an index-K cache of {slots} slots was allocated at {__file__}:" in of_keys


class Stand:
    def capture(self, run):
        return run()


def test_a_captured_step_is_a_moment_while_it_is_there():
    """What waits for a capture is too late for it until it is thrown away."""
    moments = settings._state.moments
    step = capture_step(lambda: None, lambda: None, graph=Stand())
    assert [it.told.partition(" at ")[0] for it in moments._lasting("capture", "any")] == [f"{step.what} was captured"]
    del step
    assert moments._lasting("capture", "any") == ()
