"""Steps of one token within `torch.compile`: one graph, the same logits, on the CPU with graphs that are not fused."""

from __future__ import annotations

import functools

import pytest
import torch
from tiny_models import UNQUANTISED, build, prompt
from torch._dynamo.utils import counters
from transformers import CompileConfig, StaticCache

from dsa_config import settings
from dsa_exec import record_calls
from dsa_exec.integrations.transformers import DsaCache, attached

PROMPT, NEW = 70, 8
NO_EXPERTS = {"num_hidden_layers": 2, "first_k_dense_replace": 2}
"""On the CPU transformers looks at where their tokens are, which is no part of a graph."""

KINDS = {"deepseek_v32": NO_EXPERTS, "glm_moe_dsa": {**NO_EXPERTS, "indexer_types": ["full", "shared"]}}


@functools.cache
def model_of(kind: str):
    return build(kind, **KINDS[kind])


@pytest.fixture
def fresh():
    """Nothing that was compiled before is found."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=list(KINDS))
def model(request, fresh):
    with attached(model_of(request.param)):
        yield model_of(request.param)


@pytest.fixture
def one_model(fresh):
    with attached(model_of("deepseek_v32")):
        yield model_of("deepseek_v32")


def tokens(length: int = PROMPT, batch: int = 2) -> torch.Tensor:
    return torch.tensor([prompt(seed, length) for seed in range(batch)])


def masked(width: int) -> torch.Tensor:
    """A mask with 20 tokens of padding on the left of the second request, for so many tokens."""
    mask = torch.ones(2, width, dtype=torch.long)
    mask[1, :20] = 0
    return mask


def filled(model, **options) -> DsaCache:
    """A cache of fixed size that a pass has filled."""
    cache = DsaCache.for_model(model, max_tokens=PROMPT + NEW, batch_size=2)
    with torch.no_grad():
        model(tokens(), past_key_values=cache, **options)
    return cache


def compiled(model, **options):
    return torch.compile(model.forward, **{"backend": "aot_eager", "fullgraph": True, **options})


def steps(step, cache, count: int, **options) -> torch.Tensor:
    """Logits of some steps of one token each."""
    with torch.no_grad():
        parts = tokens(count).split(1, 1)
        return torch.cat([step(part, past_key_values=cache, **options).logits for part in parts], 1)


@pytest.mark.parametrize("formats", [UNQUANTISED, {}], ids=["model", "fp8"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_step_is_one_graph_for_good(model, formats, padded):
    """Nothing breaks it, no step is compiled anew, and the logits are those of eager steps to the bit."""
    options = {"attention_mask": masked(PROMPT)} if padded else {}
    with settings.override(**formats):
        first, second = filled(model, **options), filled(model, **options)
        options = {"attention_mask": masked(PROMPT + NEW)} if padded else {}
        wanted = steps(model, first, 5, **options)
        got = steps(compiled(model), second, 5, **options)
    assert counters["stats"]["unique_graphs"] == 1
    assert torch.equal(got, wanted)
    assert int(second.get_seq_length()) == PROMPT + 5


def test_eager_passes_go_on_from_compiled_ones(one_model):
    """A prefill, a step, a crop after compiled steps: what the device has counted is what the host goes on with."""
    with settings.override(**UNQUANTISED):
        first, second = filled(one_model), filled(one_model)
        steps(one_model, first, 3)
        steps(compiled(one_model), second, 3)
        assert isinstance(second.get_seq_length(), torch.Tensor)
        for cache in (first, second):
            cache.crop(-1)
        assert second.get_seq_length() == PROMPT + 2
        with torch.no_grad():
            wanted, got = (one_model(tokens(4), past_key_values=cache).logits for cache in (first, second))
        assert torch.equal(got, wanted)
        assert torch.equal(steps(compiled(one_model), second, 2), steps(one_model, first, 2))


def test_a_step_beyond_the_room_stops(one_model):
    """Eager steps are refused before they write; compiled ones stop at once, with the same reason."""
    cache, step = filled(one_model), compiled(one_model)
    steps(step, cache, NEW)
    with pytest.raises(RuntimeError, match="more tokens than the cache has room for"):
        steps(step, cache, 1)


def test_settings_count_from_the_next_compiled_step_on(one_model):
    """A way of attending that is named takes effect at once, as in eager code."""
    cache, step = filled(one_model), compiled(one_model)
    steps(step, cache, 1)
    with record_calls() as trace, settings.override(decode_attention="sparse_bf16"):
        steps(step, cache, 1)
    assert {"kv_gather", "sparse_mla_prefill"} <= {op for op, _ in trace.decisions}
    with record_calls() as trace:
        steps(step, cache, 1)
    assert "kv_gather" not in {op for op, _ in trace.decisions}


def on_all_devices(**options) -> CompileConfig:
    """What `generate` compiles with, on the CPU too."""
    config = CompileConfig(**{"backend": "aot_eager", "mode": None, "fullgraph": True, **options})
    config._compile_all_devices = True
    return config


def greedy(model, **options) -> torch.Tensor:
    return model.generate(tokens(), attention_mask=masked(PROMPT), max_new_tokens=NEW, do_sample=False, **options)


def test_generate_compiles_its_steps_over_a_static_cache(model):
    """As on a GPU by default: one graph, also for the next call with a cache of its size, and the same tokens."""
    with settings.override(**UNQUANTISED):
        wanted = greedy(model)
        for _ in range(2):
            assert torch.equal(greedy(model, cache_implementation="static", compile_config=on_all_devices()), wanted)
            assert counters["stats"]["unique_graphs"] == 1
        cache = DsaCache.for_model(model, max_tokens=PROMPT + NEW, batch_size=2)
        assert torch.equal(greedy(model, past_key_values=cache, compile_config=on_all_devices()), wanted)
        assert not counters["graph_break"]
        assert torch.equal(greedy(model, past_key_values=DsaCache.for_model(model)), wanted)
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static", "disable_compile": True}, "StaticCache"])
def test_a_whole_model_that_is_compiled_runs_what_is_no_part_of_a_graph(model, options):
    """Prefill and caches that grow run between graphs, and give the same tokens."""
    with settings.override(**UNQUANTISED):
        wanted = greedy(model)
        if options == "StaticCache":
            cache = StaticCache(config=model.config, max_cache_len=PROMPT + NEW)
            options = {"past_key_values": cache, "disable_compile": True}
        model.forward = compiled(model, fullgraph=False)
        try:
            got = greedy(model, **options)
        finally:
            del model.forward
    assert torch.equal(got, wanted)
    assert counters["graph_break"]


def test_a_prefill_is_no_graph(one_model):
    """Asked for all in one graph, torch says what breaks it: the attention of a pass that the host has to look at."""
    cache = DsaCache.for_model(one_model, max_tokens=PROMPT, batch_size=2)
    with torch.no_grad(), pytest.raises(torch._dynamo.exc.Unsupported, match="_outside_graphs"):
        compiled(one_model)(tokens(), past_key_values=cache)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:::torch")  # what torch says within inductor: of TensorFloat32, of its own syntax
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("formats", [UNQUANTISED, {}], ids=["model", "fp8"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_steps_on_a_device_are_compiled_and_replayed(fresh, kind, formats, dtype, mode):
    """Fused by inductor, and with CUDA graphs: the logits of eager steps to rounding, cache after cache."""
    model = build(kind, **KINDS[kind]).to("cuda", dtype)
    with attached(model), settings.override(**formats), torch.no_grad():
        step = compiled(model, backend="inductor", mode=mode)
        for _ in range(2):
            first, second = (DsaCache.for_model(model, max_tokens=PROMPT + NEW, batch_size=2) for _ in range(2))
            for cache in (first, second):
                model(tokens().cuda(), past_key_values=cache)
            for part in tokens(6).cuda().split(1, 1):
                wanted = model(part, past_key_values=first).logits.float()
                torch.compiler.cudagraph_mark_step_begin()
                got = step(part, past_key_values=second).logits.float().clone()
                difference = (got - wanted).abs()
                assert float(difference.mean() if dtype == torch.bfloat16 else difference.max()) < 0.1
            assert int(second.get_seq_length()) == PROMPT + 6
    assert counters["stats"]["unique_graphs"] == 1
    assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:::torch")  # what torch says within inductor: of TensorFloat32, of its own syntax
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", list(KINDS))
def test_generate_on_a_device_compiles_by_itself(fresh, kind):
    """A static cache is enough: steps are compiled with CUDA graphs, and the tokens are those of a cache that grows."""
    model = build(kind, **KINDS[kind]).to("cuda")
    ids, mask = tokens().cuda(), masked(PROMPT).cuda()
    options = {"attention_mask": mask, "max_new_tokens": NEW, "do_sample": False}
    with attached(model):
        wanted = model.generate(ids, **options)
        for _ in range(2):
            assert torch.equal(model.generate(ids, cache_implementation="static", **options), wanted)
    assert counters["stats"]["unique_graphs"] == 1
