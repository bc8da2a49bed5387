"""What a model's configuration says about its caches, and what is said about one that cannot be planned."""

from __future__ import annotations

import pytest
from model_configs import DEEPSEEK_V4_FLASH, DEEPSEEK_V32, GLM_5, V4_RATIOS

from dsa_exec.core.errors import GeometryError
from dsa_exec.memory.geometry import geometry_of

FILE = "models/config.json"


def without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


def test_published_mla_models():
    """DeepSeek-V3.2 and GLM-5: widths, indexers in every layer, one draft layer, nothing assumed."""
    v32, glm = geometry_of(DEEPSEEK_V32, FILE), geometry_of(GLM_5, FILE)
    assert (v32.layers, v32.draft_layers, v32.latent_dim, v32.rope_dim, v32.kv_width) == (61, 1, 512, 64, 576)
    assert (v32.index_heads, v32.index_head_dim, v32.index_topk, v32.max_context_tokens) == (64, 128, 2048, 163840)
    assert (glm.layers, glm.index_heads, glm.max_context_tokens) == (78, 32, 202752)
    for geometry in (v32, glm):
        assert geometry.own_indexers == (True,) * geometry.layers
        assert not geometry.compressed
        assert (geometry.notes, geometry.origin) == ((), FILE)


def test_published_v4():
    """DeepSeek-V4-Flash: 448 channels without RoPE are head_dim less qk_rope_head_dim; ratio-4 layers have indexers."""
    geometry = geometry_of(DEEPSEEK_V4_FLASH, FILE)
    assert geometry.compressed
    assert (geometry.latent_dim, geometry.rope_dim, geometry.kv_width, geometry.window_tokens) == (448, 64, 512, 128)
    assert geometry.compress_ratios == tuple(V4_RATIOS)
    assert geometry.own_indexers == tuple(ratio == 4 for ratio in V4_RATIOS)
    assert [geometry.has_own_indexer(layer) for layer in (1, 2, 3, 43)] == [False, True, False, False]


def test_a_geometry_does_not_depend_on_where_it_was_read():
    """Two files with the same sizes describe the same model; other sizes another."""
    here, there = geometry_of(DEEPSEEK_V32, FILE), geometry_of(without(DEEPSEEK_V32, "kv_lora_rank"), "other.json")
    assert here == there
    assert here != geometry_of({**DEEPSEEK_V32, "num_hidden_layers": 60}, FILE)


def test_keys_that_are_absent_have_defaults_that_are_told():
    """A short configuration counts as transformers would complete it, in one note that names keys and values."""
    geometry = geometry_of({"model_type": "glm_moe_dsa", "num_hidden_layers": 3, "index_topk": None}, FILE)
    assert (geometry.latent_dim, geometry.rope_dim, geometry.index_heads) == (512, 64, 32)
    assert (geometry.draft_layers, geometry.draft_layers_told) == (1, False)
    [note] = geometry.notes
    assert note == (
        "models/config.json lacks keys, for which transformers' defaults count: kv_lora_rank 512, qk_rope_head_dim 64, "
        "index_n_heads 32, index_head_dim 128, index_topk 2048, max_position_embeddings 202752."
    )


@pytest.mark.parametrize("name", ["DeepseekV32Config", "GlmMoeDsaConfig", "DeepseekV4Config"])
def test_transformers_own_defaults(name):
    """What transformers writes for a model of its defaults is read without a guess about sizes, and as it means it."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, name)()
    geometry = geometry_of(config.to_dict(), FILE)
    assert geometry.layers == config.num_hidden_layers
    assert geometry.rope_dim == config.qk_rope_head_dim
    assert (geometry.index_heads, geometry.index_topk) == (config.index_n_heads, config.index_topk)
    assert geometry.max_context_tokens == config.max_position_embeddings
    if geometry.compressed:
        assert geometry.window_tokens == config.sliding_window
        assert geometry.kv_width == config.head_dim
        types = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
        assert [types[ratio] for ratio in geometry.compress_ratios] == config.layer_types
    else:
        assert geometry.latent_dim == config.kv_lora_rank


@pytest.mark.parametrize("freq", [1, 2, 3, 4])
@pytest.mark.parametrize("offset", [1, 2, 5])
def test_shared_indexers_by_frequency(freq, offset):
    """`index_topk_freq` and `index_skip_topk_offset` make the same layers full as in transformers."""
    transformers = pytest.importorskip("transformers")
    keys = {"index_topk_freq": freq, "index_skip_topk_offset": offset}
    config = transformers.GlmMoeDsaConfig(num_hidden_layers=13, **keys)
    geometry = geometry_of({**GLM_5, "num_hidden_layers": 13, **keys}, FILE)
    assert list(geometry.own_indexers) == [it == "full" for it in config.indexer_types]


def test_shared_indexers_by_list_and_by_pattern():
    """A list of words, a list under the pattern's key and a pattern of letters say the same; the list counts first."""
    small = {**GLM_5, "num_hidden_layers": 4}
    words = ["full", "shared", "shared", "full"]
    for keys in (
        {"indexer_types": words},
        {"index_topk_pattern": words},
        {"index_topk_pattern": "FSSF"},
        {"indexer_types": words, "index_topk_pattern": "FFFF", "index_topk_freq": 1},
    ):
        geometry = geometry_of({**small, **keys}, FILE)
        assert geometry.own_indexers == (True, False, False, True)
        assert geometry.has_own_indexer(4)  # a draft layer that nobody tells has one
    told = geometry_of({**small, "indexer_types": [*words, "shared"]}, FILE)
    assert not told.has_own_indexer(4)
    assert "the last is the draft layer's" in told.notes[0]
    assert geometry_of({**small, "index_topk_freq": 2}, FILE).own_indexers == (True, True, False, True)


def test_ratios_derived_from_types_and_rates():
    """`layer_types` with `compress_rates` give ratios; a type without a rate only has the window."""
    types = ["sliding_attention", "heavily_compressed_attention", "compressed_sparse_attention", "other"]
    config = {**without(DEEPSEEK_V4_FLASH, "compress_ratios"), "num_hidden_layers": 4, "layer_types": types}
    rates = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
    geometry = geometry_of({**config, "compress_rates": rates}, FILE)
    assert geometry.compress_ratios == (0, 128, 4, 0)
    [note] = geometry.notes
    told = "layer_types of models/config.json has other, for which compress_rates has no entry"
    assert note == f"{told}: such layers count as window only."
    swapped = {"compressed_sparse_attention": 128, "heavily_compressed_attention": 0}
    assert geometry_of({**config, "compress_rates": swapped}, FILE).compress_ratios == (0, 0, 128, 0)
    assert geometry_of({**config, "compress_rate_csa": 4, "compress_rate_hca": 0}, FILE).compress_ratios == (0, 0, 4, 0)
    assert geometry_of(config, FILE).compress_ratios == (0, 128, 4, 0)


def test_given_ratios_count_before_derived_ones():
    """Where both ways of writing disagree, `compress_ratios` counts, and a note says so; silence where they agree."""
    config = {**DEEPSEEK_V4_FLASH, "num_hidden_layers": 2, "compress_ratios": [0, 4]}
    same = {**config, "layer_types": ["sliding_attention", "compressed_sparse_attention"]}
    other = {**config, "layer_types": ["sliding_attention", "heavily_compressed_attention"]}
    assert geometry_of(same, FILE).notes == ()
    disagreeing = geometry_of(other, FILE)
    assert disagreeing.compress_ratios == (0, 4)
    assert disagreeing.notes == (
        "compress_ratios and layer_types of models/config.json disagree: compress_ratios counts.",
    )


def test_T38_a_list_with_the_mtp_layer_in_it():
    """T38: 44 ratios for 43 layers count 43, and a note says what the last one is; only the draft layer has it."""
    with_mtp, without_mtp = (
        geometry_of({**DEEPSEEK_V4_FLASH, "compress_ratios": ratios}, FILE) for ratios in ([*V4_RATIOS, 4], V4_RATIOS)
    )
    assert with_mtp.compress_ratios == without_mtp.compress_ratios
    assert with_mtp.layers == 43
    assert (with_mtp.ratio_of(43), without_mtp.ratio_of(43)) == (4, 0)
    assert (with_mtp.has_own_indexer(43), without_mtp.has_own_indexer(43)) == (True, False)
    [note] = with_mtp.notes
    told = "compress_ratios of models/config.json has 44 entries for 43 layers"
    assert note == f"{told}: the last is the draft layer's, and counts only if that layer is loaded."
    three = {**DEEPSEEK_V4_FLASH, "num_nextn_predict_layers": 3, "compress_ratios": [*V4_RATIOS, 0, 4, 128]}
    assert [geometry_of(three, FILE).ratio_of(layer) for layer in (43, 44, 45, 46)] == [0, 4, 128, 0]
    assert "the last 3 are draft layers'" in geometry_of(three, FILE).notes[0]


@pytest.mark.parametrize("length", [0, 1, 42, 45, 46])
def test_T38_a_list_of_another_length_is_an_error(length):
    """T38: a list that is neither of the layers nor of these and the draft layers is not read as if it were."""
    config = {**DEEPSEEK_V4_FLASH, "compress_ratios": ([*V4_RATIOS, 0, 0, 0])[:length]}
    with pytest.raises(GeometryError) as caught:
        geometry_of(config, FILE)
    assert (caught.value.key, caught.value.value, caught.value.origin) == ("len(compress_ratios)", length, FILE)
    assert "wanted 43, one for each of num_hidden_layers, or 44 with draft layers" in str(caught.value)


def test_the_window_under_either_name():
    """`window_size` or `sliding_window`; both, if they agree; neither has transformers' default."""
    config = without(DEEPSEEK_V4_FLASH, "sliding_window")
    assert geometry_of({**config, "window_size": 64}, FILE).window_tokens == 64
    assert geometry_of({**config, "sliding_window": 64}, FILE).window_tokens == 64
    assert geometry_of({**config, "window_size": 64, "sliding_window": 64}, FILE).window_tokens == 64
    assert geometry_of(config, FILE).window_tokens == 128


def test_the_rope_part_under_either_name():
    """`qk_rope_head_dim`, or the share of head_dim that transformers writes in its place."""
    config = without(DEEPSEEK_V4_FLASH, "qk_rope_head_dim")
    share = geometry_of({**config, "partial_rotary_factor": 0.25}, FILE)
    assert (share.latent_dim, share.rope_dim) == (384, 128)
    named = geometry_of({**config, "partial_rotary_factor": 0.25, "qk_rope_head_dim": 32}, FILE)
    assert (named.latent_dim, named.rope_dim) == (480, 32)
    assert geometry_of(config, FILE).rope_dim == 64


V4 = {**DEEPSEEK_V4_FLASH, "num_hidden_layers": 2, "compress_ratios": [0, 4]}
TYPES = {**without(V4, "compress_ratios"), "layer_types": ["sliding_attention", "compressed_sparse_attention"]}
SHARE = without(V4, "qk_rope_head_dim")
GLM = {**GLM_5, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("config", "key", "value", "wanted"),
    [
        ({}, "model_type", None, "one of deepseek_v32, glm_moe_dsa, deepseek_v4"),
        ({"model_type": "llama"}, "model_type", "llama", "one of deepseek_v32, glm_moe_dsa, deepseek_v4"),
        ({"model_type": ["deepseek_v4"]}, "model_type", ["deepseek_v4"], "one of"),
        ({"model_type": "deepseek_v32"}, "num_hidden_layers", None, "an integer from 1 to 10000"),
        ({**DEEPSEEK_V32, "num_hidden_layers": 0}, "num_hidden_layers", 0, "an integer from 1"),
        ({**DEEPSEEK_V32, "num_hidden_layers": 10**9}, "num_hidden_layers", 10**9, "to 10000"),
        ({**DEEPSEEK_V32, "num_hidden_layers": "61"}, "num_hidden_layers", "61", "an integer"),
        ({**DEEPSEEK_V32, "num_hidden_layers": 61.0}, "num_hidden_layers", 61.0, "an integer"),
        ({**DEEPSEEK_V32, "num_hidden_layers": True}, "num_hidden_layers", True, "an integer"),
        ({**DEEPSEEK_V32, "num_nextn_predict_layers": -1}, "num_nextn_predict_layers", -1, "from 0"),
        ({**DEEPSEEK_V32, "kv_lora_rank": -512}, "kv_lora_rank", -512, "an integer from 1"),
        ({**DEEPSEEK_V32, "index_head_dim": 64}, "index_head_dim", 64, "128, the only value that is supported"),
        ({**GLM, "indexer_types": ["full", "half"]}, "indexer_types[1]", "half", "full or shared"),
        ({**GLM, "indexer_types": ["shared", "full"]}, "indexer_types[0]", "shared", "no layer before the first"),
        ({**GLM, "indexer_types": "FF"}, "indexer_types", "FF", "a list of 2 entries"),
        ({**GLM, "indexer_types": ["full"]}, "len(indexer_types)", 1, "2, one for each"),
        ({**GLM, "index_topk_pattern": "FX"}, "index_topk_pattern[1]", "X", "full or shared"),
        ({**GLM, "index_topk_pattern": ""}, "len(index_topk_pattern)", 0, "2, one for each"),
        ({**GLM, "index_topk_freq": -1}, "index_topk_freq", -1, "an integer from 0"),
        ({**GLM, "index_topk_freq": 2, "index_skip_topk_offset": 0}, "index_skip_topk_offset", 0, "an integer from 1"),
        (without(V4, "compress_ratios"), "compress_ratios", None, "or else layer_types and compress_rates"),
        ({**V4, "compress_ratios": {"0": 4}}, "compress_ratios", {"0": 4}, "a list of 2 entries"),
        ({**V4, "compress_ratios": [0, 8]}, "compress_ratios[1]", 8, "0 (window only), 4 or 128"),
        ({**V4, "compress_ratios": [0, False]}, "compress_ratios[1]", False, "0 (window only), 4 or 128"),
        ({**V4, "compress_ratios": [0, 4, 2]}, "compress_ratios[2]", 2, "0 (window only), 4 or 128"),
        ({**V4, "compress_ratios": [0, None]}, "compress_ratios[1]", None, "0 (window only), 4 or 128"),
        ({**TYPES, "compress_rates": [4]}, "compress_rates", [4], "an object that gives a ratio"),
        ({**TYPES, "compress_rates": {"x": 3}}, "compress_rates.x", 3, "0 (window only), 4 or 128"),
        ({**TYPES, "compress_rate_csa": 2}, "compress_rate_csa", 2, "0 (window only), 4 or 128"),
        ({**TYPES, "layer_types": ["x"]}, "len(layer_types)", 1, "2, one for each"),
        ({**V4, "head_dim": 1}, "head_dim", 1, "an integer from 2"),
        ({**V4, "qk_rope_head_dim": 512}, "qk_rope_head_dim", 512, "less than head_dim=512"),
        (
            {**SHARE, "partial_rotary_factor": 1.5},
            "partial_rotary_factor",
            1.5,
            "between 0 and 1",
        ),
        (
            {**SHARE, "partial_rotary_factor": "x"},
            "partial_rotary_factor",
            "x",
            "between 0 and 1",
        ),
        (
            {**SHARE, "partial_rotary_factor": 1e-9},
            "partial_rotary_factor",
            1e-9,
            "at least one channel",
        ),
        ({**V4, "window_size": 64}, "sliding_window", 128, "64, as window_size says"),
        ({**V4, "sliding_window": 0}, "sliding_window", 0, "an integer from 1"),
    ],
)
def test_a_configuration_that_cannot_be_planned(config, key, value, wanted):
    """The error names the key, its value, the file and what is allowed."""
    with pytest.raises(GeometryError) as caught:
        geometry_of(config, FILE)
    error = caught.value
    assert (error.key, error.value, error.origin) == (key, value, FILE)
    assert wanted in error.wanted
    assert str(error) == f"{FILE}: {key} is {'absent' if value is None else repr(value)}; wanted {error.wanted}"
