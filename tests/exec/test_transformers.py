"""Our indexer, attention and caches in transformers' models: the same tokens, nothing left behind."""

from __future__ import annotations

import pytest
import torch
from oracles.fake_quant import fake_quantised
from tiny_models import CONFIGS, NEW, PROMPT, UNQUANTISED, build, ours, prompt
from transformers import AutoModelForCausalLM, DynamicCache, EncoderDecoderCache, LlamaConfig

from dsa_config import settings
from dsa_exec.core.errors import LayoutError, RangeError
from dsa_exec.integrations.transformers import DsaCache, NotSupported, attached, load_tiny
from dsa_exec.integrations.transformers.attention import DsaAttention
from dsa_exec.integrations.transformers.greedy import agreement, continue_greedily
from dsa_exec.integrations.transformers.indexer import DsaDeepseekV32Indexer, DsaGlmMoeDsaIndexer


@pytest.fixture(params=list(CONFIGS))
def kind(request):
    return request.param


@pytest.fixture
def model(kind):
    return build(kind)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_quantised_gives_the_tokens_of_plain_transformers(model, seed):
    """Formats `model`: token for token, with logits equal to rounding and the same selection."""
    plain = continue_greedily(model, prompt(seed), NEW)
    with settings.override(**UNQUANTISED):
        agreed = agreement(plain, ours(model, prompt(seed)))
    assert agreed.first_divergence is None
    assert agreed.selected_in_common == 1.0
    assert agreed.largest_logit_difference < 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_fp8_gives_the_tokens_of_the_fake_quantised_oracle(model, seed):
    """Formats `fp8`: token for token what plain transformers gives on rounded index vectors and latents."""
    with fake_quantised(model):
        oracle = continue_greedily(model, prompt(seed), NEW)
    agreed = agreement(oracle, ours(model, prompt(seed)))
    assert agreed.first_divergence is None
    assert agreed.selected_in_common > 0.999
    # Processors sum f32 in orders of their own. Where that swaps two positions of nearly the same score, the logits of
    # that row differ by what one position of many is worth; quantising without the oracle's rounding costs 0.5.
    assert agreed.largest_logit_difference < (1e-2 if agreed.selected_in_common == 1.0 else 1e-1)


@pytest.mark.parametrize("seed", range(3))
def test_one_layer_of_fp8_agrees_with_the_oracle_to_rounding(kind, seed):
    """With one layer nothing is quantised that an earlier layer has rounded another way: logits agree to f32."""
    one = {"num_hidden_layers": 1} | ({"indexer_types": ["full"]} if kind == "glm_moe_dsa" else {})
    model = build(kind, **one)
    with fake_quantised(model):
        oracle = continue_greedily(model, prompt(seed), NEW)
    agreed = agreement(oracle, ours(model, prompt(seed)))
    assert (agreed.first_divergence, agreed.selected_in_common) == (None, 1.0)
    assert agreed.largest_logit_difference < 1e-5


def test_fp8_differs_from_the_unquantised_model_and_the_report_sees_it(model):
    """Against the unquantised model fp8 selects mostly the same and gives other logits; the comparison shows both."""
    plain = continue_greedily(model, prompt(0), NEW)
    agreed = agreement(plain, ours(model, prompt(0)))
    assert 0.8 < agreed.selected_in_common < 1.0
    assert agreed.largest_logit_difference > 1e-3


@pytest.mark.parametrize("formats", [UNQUANTISED, {}], ids=["model", "fp8"])
def test_chunks_fusion_and_debugging_do_not_change_the_tokens(model, formats):
    """A budget of a few rows, the transform apart, and index checks leave tokens and logits to the bit as they are."""
    with settings.override(**formats):
        whole = ours(model, prompt(1))
        with settings.override(mqa_logits_max_chunk_bytes=5000, fuse_topk=False, debug_check_indices=True):
            parts = ours(model, prompt(1))
    assert whole.tokens == parts.tokens
    assert torch.equal(whole.logits, parts.logits)


def test_a_batch_with_left_padding(model):
    """Padding is not stored and not seen: each request gets the tokens of transformers."""
    tokens = torch.tensor([prompt(2), prompt(3)])
    mask = torch.ones_like(tokens)
    tokens[1, :37] = mask[1, :37] = 0
    plain = model.generate(tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
    with settings.override(**UNQUANTISED), attached(model):
        cache = DsaCache.for_model(model, max_tokens=PROMPT + NEW, batch_size=2)
        got = model.generate(tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False, past_key_values=cache)
    assert torch.equal(plain, got)


def test_a_prompt_in_parts(model):
    """Two prefills, the second with a past, then decode: the logits of one prefill."""
    tokens = torch.tensor([prompt(4)])
    with torch.no_grad(), settings.override(**UNQUANTISED):
        whole = model(tokens).logits
        with attached(model):
            cache = DsaCache.for_model(model, max_tokens=PROMPT)
            parts = [tokens[:, :70], tokens[:, 70:-1], tokens[:, -1:]]
            logits = torch.cat([model(part, past_key_values=cache).logits for part in parts], dim=1)
            assert cache.get_seq_length() == PROMPT
            cache.reset()
            again = model(tokens, past_key_values=cache).logits
    torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again, whole, atol=1e-4, rtol=1e-4)


def test_pages_in_any_order(model):
    """A page table that is shuffled gives the same logits: nothing takes positions for slots."""
    tokens = torch.tensor([prompt(5)])
    with torch.no_grad(), attached(model):
        ordered, shuffled = (DsaCache.for_model(model, max_tokens=PROMPT + 1) for _ in range(2))
        shuffled.page_table = shuffled.page_table.flip(1).contiguous()
        first = [model(part, past_key_values=ordered).logits for part in (tokens, tokens[:, :1])]
        second = [model(part, past_key_values=shuffled).logits for part in (tokens, tokens[:, :1])]
    assert torch.equal(first[0], second[0])
    # In decode, rows are summed in the order of their slots' positions in both; only where they lie differs.
    assert torch.equal(first[1], second[1])


def test_detaching_leaves_no_trace(model):
    """The model's own modules, mask and state dict are back, also after an error."""
    modules, keys = [layer.self_attn for layer in model.model.layers], list(model.state_dict())
    implementation = model.config._attn_implementation
    before = model(torch.tensor([prompt(0, 20)])).logits
    with pytest.raises(RuntimeError, match="inside"), attached(model):
        assert list(model.state_dict()) == keys
        assert isinstance(modules[0], DsaAttention)
        raise RuntimeError("inside")
    assert [layer.self_attn for layer in model.model.layers] == modules
    assert [module for module in model.modules() if type(module).__module__.startswith("dsa_exec")] == []
    assert model.config._attn_implementation == implementation
    assert torch.equal(model(torch.tensor([prompt(0, 20)])).logits, before)


def expect_refusal(words: str, call) -> None:
    with pytest.raises(NotSupported, match=words):
        call()


def test_what_is_not_supported_is_refused_in_words(model):
    """Another cache, another mask, padding elsewhere, attention weights, another model: a sentence each."""
    tokens = torch.tensor([prompt(0, 20)])
    mask = torch.ones_like(tokens)
    mask[0, 10] = 0
    full = torch.zeros(1, 1, 20, 20)
    llama = AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    filled = DynamicCache(config=model.config)
    model(tokens, past_key_values=filled)
    both = EncoderDecoderCache(DynamicCache(), DynamicCache())
    with attached(model), torch.no_grad():
        cache = DsaCache.for_model(model, max_tokens=64)
        for words, options in [
            ("past_key_values is EncoderDecoderCache: pass DsaCache.for_model", {"past_key_values": both}),
            ("was filled by another attention: pass an empty cache", {"past_key_values": filled}),
            ("without offloading", {"past_key_values": DynamicCache(config=model.config, offloading=True)}),
            ("padding that is not on the left", {"past_key_values": cache, "attention_mask": mask}),
            ("says nothing of 5 of 20 tokens", {"past_key_values": cache, "attention_mask": mask[:, :15]}),
            ("made by the caller", {"past_key_values": cache, "attention_mask": full}),
            ("output_attentions: attention weights are not kept", {"output_attentions": True}),
        ]:
            expect_refusal(words, lambda options=options: model(tokens, **options))
        assert cache.get_seq_length() == 0
        with pytest.raises(TypeError, match="written by our attention"):
            cache.update(torch.zeros(1), torch.zeros(1), 0)
        for call in (cache.layers[0].offload, cache.layers[0].prefetch):
            expect_refusal("without offloading", call)
    for call in (lambda: attached(llama).__enter__(), lambda: DsaCache.for_model(llama, max_tokens=8)):
        expect_refusal("model_type='llama': deepseek_v32 and glm_moe_dsa are", call)
    with attached(model):
        loss = model(tokens, labels=tokens).loss
        expect_refusal("no gradient passes an FP8 cache: set kv_format=model", loss.backward)
    with pytest.raises(RangeError, match="max_tokens is 0; wanted an integer of at least 1"):
        DsaCache.for_model(model, max_tokens=0)
    with pytest.raises(RangeError, match="batch_size is 2; wanted None: a cache without max_tokens has as many"):
        DsaCache.for_model(model, batch_size=2)
    model.config.quantization_config = {"quant_method": "fp8"}
    expect_refusal("weights are quantised", lambda: attached(model).__enter__())


def test_a_cache_that_is_too_small_says_so(model):
    """More tokens or requests than there is room for is an error before anything is written."""
    with attached(model):
        cache = DsaCache.for_model(model, max_tokens=16)
        with pytest.raises(RangeError, match="batch_size=1 and max_tokens=16; wanted room for 1 requests of 20"):
            model(torch.tensor([prompt(0, 20)]), past_key_values=cache)
        with pytest.raises(RangeError, match="wanted room for 2 requests"):
            model(torch.tensor([prompt(0, 8)] * 2), past_key_values=cache)
        assert not any(layer.mla.data.any() for layer in cache.layers)


def test_other_geometries_need_the_model_format():
    """A latent of 32 channels or index keys of 64 have no fp8 layout; nothing quantised, they run."""
    small = build("deepseek_v32", kv_lora_rank=32, index_head_dim=64, qk_rope_head_dim=16, head_dim=16)
    with pytest.raises(LayoutError, match="kv_lora_rank is 32; .*kv_format=model"):
        DsaCache.for_model(small, max_tokens=64)
    with settings.override(kv_format="model"), pytest.raises(LayoutError, match="head_dim is 64.*index_k_format=model"):
        DsaCache.for_model(small, max_tokens=64)
    plain = continue_greedily(small, prompt(0), NEW)
    with settings.override(**UNQUANTISED):
        assert ours(small, prompt(0)).tokens == plain.tokens


def test_gradients_pass_the_model_format(model):
    """With nothing quantised, the gradients of all but the indexer are those of plain transformers."""
    tokens = torch.tensor([prompt(7, 60)])

    def gradients(**kwargs) -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(tokens, labels=tokens, **kwargs).loss.backward()
        return {name: it.grad.clone() for name, it in model.named_parameters() if it.grad is not None}

    plain = gradients()
    with settings.override(**UNQUANTISED), attached(model):
        ours = gradients(past_key_values=DsaCache.for_model(model, max_tokens=60))
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-3)


def test_a_checkpoints_sampling_does_not_matter(model):
    """Greedy is greedy, whatever the generation configuration says; only its end tokens count."""
    plain = continue_greedily(model, prompt(0), 6)
    model.generation_config.update(repetition_penalty=1.9, num_beams=4, do_sample=True, num_return_sequences=2)
    assert continue_greedily(model, prompt(0), 6).tokens == plain.tokens
    model.generation_config.eos_token_id = [plain.tokens[2], 255]
    first = plain.tokens.index(plain.tokens[2])
    assert continue_greedily(model, prompt(0), 6).tokens == plain.tokens[: first + 1]


def test_bf16_models_run(kind):
    """A model in bf16 keeps bf16 latents in the model format, and picks mostly what plain transformers picks."""
    model = build(kind).to(torch.bfloat16)
    plain = continue_greedily(model, prompt(0), 4)
    with settings.override(**UNQUANTISED):
        agreed = agreement(plain, ours(model, prompt(0), 4))
    assert agreed.selected_in_common > 0.9


def test_t20_the_rotation_of_the_indexer_is_the_models():
    """T20: halves for DeepSeek-V3.2, neighbours for GLM; with the other one the selection is another."""
    model = build("deepseek_v32")
    plain = continue_greedily(model, prompt(6), 2)
    with settings.override(**UNQUANTISED), pytest.MonkeyPatch.context() as patch:
        right = agreement(plain, ours(model, prompt(6), 2))
        patch.setattr(DsaDeepseekV32Indexer, "rotate", vars(DsaGlmMoeDsaIndexer)["rotate"])
        wrong = agreement(plain, ours(model, prompt(6), 2))
    assert right.selected_in_common == 1.0
    assert wrong.selected_in_common < 0.9


def test_the_shipped_model_is_the_same_every_time():
    """Two loads give the same weights, and the caller's random state is left alone."""
    before = torch.get_rng_state()
    first, second = (load_tiny(torch.device("cpu")).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before)
