"""A model whose layers are on several devices."""

from __future__ import annotations

import gc
import sys
import types
from pathlib import Path

import pytest
import torch
from tiny_models import NEW, UNQUANTISED, build, ours, prompt
from torch import nn

from dsa_config import settings
from dsa_exec.integrations.transformers import CheckpointError, NotSupported, attached, load_tiny, spread
from dsa_exec.integrations.transformers.checkpoint import _require_on_devices
from dsa_exec.integrations.transformers.greedy import continue_greedily
from dsa_exec.integrations.transformers.spread import Mover, connect_layers

META = torch.device("meta")


def test_what_several_layers_are_given_is_moved_once():
    """The same tensor for both, so that what one worked out for it is there for the other; others stay apart."""
    mover, layer = Mover(), nn.Linear(1, 1, device=META)
    mask, state, cache = torch.zeros(2), torch.ones(3), object()
    first, second = (mover(layer, (state,), {"mask": mask, "pair": (mask, 5), "cache": cache}) for _ in range(2))
    (args, kwargs), (_, again) = first, second
    assert args[0].device == kwargs["mask"].device == META
    assert kwargs["mask"] is again["mask"] is kwargs["pair"][0]
    assert kwargs["mask"] is not args[0]
    assert (kwargs["pair"][1], kwargs["cache"]) == (5, cache)


def test_what_is_at_home_stays_the_same_object():
    """Nothing is copied; a module without weights leaves everything where it is."""
    state = torch.ones(3)
    assert Mover()(nn.Linear(1, 1), ([state],), {})[0][0][0] is state
    assert Mover()(nn.Identity(), (state,), {"x": {"y": state}}) == ((state,), {"x": {"y": state}})


def test_copies_live_no_longer_than_their_originals():
    """A pass leaves nothing behind."""
    mover = Mover()
    mover.moved([torch.zeros(2), torch.zeros(3)], META)
    gc.collect()
    assert len(mover._moved) == 0


@pytest.mark.parametrize("kind", ["deepseek_v32", "glm_moe_dsa"])
def test_hooks_of_accelerate_are_taken_out(kind, monkeypatch):
    """With them our attention refuses the model, since it would pass some by; without, both attentions give the same
    tokens as before.
    """
    model, tokens = build(kind), prompt(0)
    plain = continue_greedily(model, tokens, NEW).tokens
    for module in model.modules():  # as accelerate does it
        module._hf_hook, module._old_forward = object(), module.forward
        module.forward = types.MethodType(lambda self, *args, **kwargs: self._old_forward(*args, **kwargs), module)

    def remove_hook_from_module(module: nn.Module, recurse: bool) -> None:
        for it in module.modules():
            it.forward = it._old_forward
            del it._hf_hook, it._old_forward

    hooks = types.SimpleNamespace(remove_hook_from_module=remove_hook_from_module)
    monkeypatch.setitem(sys.modules, "accelerate", types.SimpleNamespace(hooks=hooks))
    monkeypatch.setitem(sys.modules, "accelerate.hooks", hooks)
    with pytest.raises(NotSupported, match="has a hook"), attached(model):
        pass
    connect_layers(model)
    assert continue_greedily(model, tokens, NEW).tokens == plain
    with settings.override(**UNQUANTISED):
        assert ours(model, tokens).tokens == plain


@pytest.mark.parametrize("wanted", ["auto", {"": "cpu"}], ids=["auto", "dict"])
def test_a_map_without_accelerate(monkeypatch, wanted):
    """What lacks is named, with the extra that brings it, before anything is loaded."""
    monkeypatch.setattr(spread, "is_accelerate_available", lambda: False)
    words = r"^device_map needs accelerate 1.1 or newer, which spreads a model: pip install 'dsa\[spread\]'$"
    with pytest.raises(NotSupported, match=words):
        load_tiny(torch.device("cpu"), device_map=wanted)


def placed(homes: dict[str, object], *parameters: torch.Tensor) -> types.SimpleNamespace:
    return types.SimpleNamespace(hf_device_map=homes, parameters=lambda: iter(parameters))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (placed({"model.layers.0": 0, "model.layers.1": "cpu", "lm_head": "cpu"}), "model.layers.1 and 1 more"),
        (placed({"model.layers.0": 0, "lm_head": "disk"}), "no room for lm_head"),
        (placed({"": 0}, torch.empty(1, device=META)), "no room for part of the model"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model, words):
    """What would stay in the host's memory or on disk is named."""
    with pytest.raises(CheckpointError, match=words):
        _require_on_devices(Path("folder"), model)


def test_a_map_of_one_place_is_none():
    """All on the CPU, where there is nothing else, or all on one GPU."""
    for homes in ({"": "cpu"}, {"": 0}, {"model": 0, "lm_head": 1}, {}):
        assert _require_on_devices(Path("folder"), placed(homes, torch.zeros(1))) is None


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("kind", ["deepseek_v32", "glm_moe_dsa"])
@pytest.mark.parametrize("formats", [UNQUANTISED, {}], ids=["model", "fp8"])
def test_layers_on_two_gpus(kind, formats):
    """The tokens are those of one GPU, with our attention and with transformers' own."""
    tokens = prompt(0)
    one, two = (build(kind, num_hidden_layers=4, **SHARED.get(kind, {})).to("cuda:0") for _ in range(2))
    for layer in two.model.layers[2:]:
        layer.to("cuda:1")
    two.model.norm.to("cuda:1")
    two.lm_head.to("cuda:1")
    connect_layers(two)
    assert continue_greedily(two, tokens, NEW).tokens == continue_greedily(one, tokens, NEW).tokens
    with settings.override(**formats):
        assert ours(two, tokens).tokens == ours(one, tokens).tokens


SHARED = {"glm_moe_dsa": {"indexer_types": ["full", "shared", "shared", "full"]}}
"""A layer on the second GPU takes the selection of one on the first."""
