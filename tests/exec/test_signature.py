"""What two calls must have in common to be decided alike."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch
from conformance_suite import CONTRACTS, arguments, returned_by

from dsa_config import settings
from dsa_exec import IndexKCache, MlaCache
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch import select
from dsa_exec.dispatch.signature import signature_of, values_in
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.ops.index_select import Call as SelectCall
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys
from dsa_exec.ops.sparse_mla_decode import Call

CACHE = MlaCache.allocate(128, device="cpu", model_dtype=torch.bfloat16)


def call(**changed) -> Call:
    whole = Call(torch.zeros(4, 16, 576), CACHE, torch.zeros(4, 32, dtype=torch.int32), 0.1, None)
    return dataclasses.replace(whole, **changed)


def test_the_numbers_in_tensors_do_not_count():
    """Two steps of the same shapes are one call to a backend."""
    assert signature_of(call()) == signature_of(call(q=torch.ones(4, 16, 576)))
    assert hash(signature_of(call())) == hash(signature_of(call()))


@pytest.mark.parametrize(
    "changed",
    [
        {"q": torch.zeros(5, 16, 576)},
        {"q": torch.zeros(4, 16, 576, dtype=torch.bfloat16)},
        {"q": torch.zeros(4, 16, 580)[..., :576]},
        {"q": torch.zeros(4 * 16 * 576 + 1)[1:].view(4, 16, 576)},
        {"q": torch.zeros(4, 16, 576).requires_grad_()},
        {"q": torch.nn.Parameter(torch.zeros(4, 16, 576), requires_grad=False)},
        {"sm_scale": 0.2},
        {"attn_sink": torch.zeros(16)},
        {"cache": MlaCache(CACHE.data.clone()[:64], CACHE.layout)},
        {"cache": MlaCache(CACHE.data, dataclasses.replace(CACHE.layout, page_tokens=32))},
        {"cache": MlaCache(torch.zeros(128, 576), MlaLayout("model", element_bytes=4))},
    ],
    ids="rows dtype stride alignment gradient class scale sink slots pages format".split(),
)
def test_what_a_backend_may_ask_for_counts(changed):
    """A shape, a stride, a dtype, an alignment, a wanted gradient, a layout and a number each make another call."""
    assert signature_of(call(**changed)) != signature_of(call())


def test_gradients_count_only_where_they_are_on():
    """With gradients off, a tensor that requires one is like any other; on or off is part of the signature itself."""
    wants = call(q=torch.zeros(4, 16, 576).requires_grad_())
    with_gradients = signature_of(call())
    with torch.no_grad():
        assert signature_of(wants) == signature_of(call())
        assert signature_of(call()) != with_gradients


def test_keys_of_either_kind_and_their_caches_count():
    """Fields that may hold one dataclass or another are told apart, and looked into."""
    cache = IndexKCache.allocate(64, device="cpu", model_dtype=torch.bfloat16)
    table, lens = torch.zeros(2, 1, dtype=torch.int32), torch.ones(2, 1, dtype=torch.int32)
    q, weights = torch.zeros(2, 1, 4, 128, dtype=E4M3), torch.zeros(2, 4)
    paged = SelectCall(q, weights, PagedKeys(cache, table, lens), 8, True, "auto", 1)
    other_table = SelectCall(q, weights, PagedKeys(cache, table.repeat(1, 2), lens), 8, True, "auto", 1)
    keys = GatheredKeys(torch.zeros(9, 128, dtype=E4M3), torch.ones(9), lens[:, 0], lens[:, 0])
    gathered = SelectCall(q, weights, keys, 8, True, "auto", 1)
    assert len({signature_of(it) for it in (paged, other_table, gathered)}) == 3
    assert signature_of(paged) == signature_of(dataclasses.replace(paged, workspace=2))
    assert values_in(paged) == (cache.layout,)


@pytest.mark.parametrize("op", CONTRACTS)
def test_no_signature_holds_a_tensor(op, monkeypatch):
    """Of every op's calls: a tensor in a key would be compared by its numbers, or kept alive."""
    seen = []
    monkeypatch.setattr(select, "signature_of", lambda it: seen.append(signature_of(it)) or seen[-1])
    for case in CONTRACTS[op].cases[:6]:
        with settings.override(debug_check_indices=False):
            returned_by(op, "torch", case, arguments(op, case, torch.device("cpu")))
    assert seen
    assert not any(isinstance(part, torch.Tensor) for signature in seen for part in flat(signature))


def flat(value):
    """The parts of nested tuples."""
    if type(value) is tuple:
        for part in value:
            yield from flat(part)
    else:
        yield value


def test_layers_of_a_model_have_one_signature():
    """Caches with equal layouts share one layout, however they were made: a layer's call is like the last layer's."""
    caches = [MlaCache(CACHE.data.clone(), dataclasses.replace(CACHE.layout)) for _ in range(2)]
    assert caches[0].layout is caches[1].layout
    assert signature_of(call(cache=caches[0])) == signature_of(call(cache=caches[1]))
    first, second = (IndexKCache.allocate(64, device="cpu", model_dtype=torch.bfloat16) for _ in range(2))
    assert first.layout is second.layout
    assert IndexKCache(first.data, IndexKLayout.of_spec(first.layout.spec)).layout is first.layout


def test_every_call_is_a_frozen_dataclass():
    """A signature is of a call that stays as it is."""
    for op in CONTRACTS:
        kind = importlib.import_module(f"dsa_exec.ops.{op}").Call
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen
