"""What a planner is asked for: defaults, errors, notes, and the equation with numbers in it."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
from model_configs import DEEPSEEK_V4_FLASH, DEEPSEEK_V32

from dsa_exec.core.errors import DsaError, LayoutError, PlanError
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_pools import plan_pools
from dsa_exec.memory.plan_world import World

GIB = 2**30
V32 = geometry_of(DEEPSEEK_V32, "v32/config.json")
V4 = geometry_of(DEEPSEEK_V4_FLASH, "v4/config.json")
ONE = World()
A_RATIO = "a number greater than 0 and at most 1"
LEFT = "a positive integer: what is left of a device after weights"
WHOLE_PAGES = "a multiple of 128 tokens, because groups of 128 tokens are compressed and the window has 128"


def test_defaults():
    """fp8, pages of 64 (256 in V4), no speculation, the model's own context, a ratio of exactly a tenth."""
    v32, v4 = plan_pools(V32, ONE, 20 * GIB), plan_pools(V4, ONE, 60 * GIB)
    assert (v32.page_tokens, v4.page_tokens) == (64, 256)
    assert (v32.context_tokens, v4.context_tokens) == (163840, 1048576)
    assert v32.ranks[0].draft_layers == v4.ranks[0].draft_layers == 0
    assert v4.options.swa_ratio == Fraction(1, 10)
    assert v32.ranks[0].max_requests is None
    assert plan_pools(V32, World(dp=3), 20 * GIB, PlanOptions(max_running_requests=10)).ranks[0].max_requests == 3


@pytest.mark.parametrize("ratio", [0.1, "0.1", "1/10", Fraction(1, 10)])
def test_a_ratio_is_the_decimal_number_that_is_written(ratio):
    """0.1 is a tenth, however it is written, and not the binary fraction next to it."""
    assert PlanOptions(swa_full_tokens_ratio=ratio).swa_ratio == Fraction(1, 10)


@pytest.mark.parametrize(
    ("geometry", "options", "text"),
    [
        (V32, {"kv": "fp4"}, "kv format is 'fp4'; wanted one of fp8, bf16, fp8-raw"),
        (V4, {"index_k": "bf16"}, "index-K format is 'bf16'; wanted one of fp8, fp4"),
        (V32, {"index_k": "fp4"}, "index-K format is fp4; wanted fp8 for deepseek_v32"),
        (V32, {"page_tokens": 0}, "page size is 0; wanted an integer from 1 to 2147483647"),
        (V32, {"page_tokens": 64.0}, "page size is 64.0; wanted an integer from 1 to 2147483647"),
        (V32, {"draft_tokens": -1}, "draft tokens is -1; wanted an integer from 0 to 2147483647"),
        (V32, {"draft_layers": True}, "draft layers is True; wanted an integer from 0 to 10000"),
        (V32, {"draft_layers": 10**6}, "draft layers is 1000000; wanted an integer from 0 to 10000"),
        (V32, {"context_tokens": 0}, "context length is 0; wanted an integer from 1 to 2147483647"),
        (V32, {"max_tokens": 2**31}, "max tokens is 2147483648; wanted an integer from 1 to 2147483647"),
        (V32, {"max_running_requests": 0}, "max_running_requests is 0; wanted an integer from 1 to 2147483647"),
        (V4, {"page_tokens": 64}, f"page size is 64; wanted {WHOLE_PAGES}"),
        (V4, {"swa_full_tokens_ratio": 0}, f"swa_full_tokens_ratio is 0; wanted {A_RATIO}"),
        (
            V4,
            {"swa_full_tokens_ratio": 1.1},
            f"swa_full_tokens_ratio is 1.1; wanted {A_RATIO}",
        ),
        (
            V4,
            {"swa_full_tokens_ratio": "x"},
            f"swa_full_tokens_ratio is 'x'; wanted {A_RATIO}",
        ),
        (
            V4,
            {"swa_full_tokens_ratio": "1/0"},
            f"swa_full_tokens_ratio is '1/0'; wanted {A_RATIO}",
        ),
        (
            V4,
            {"swa_full_tokens_ratio": float("nan")},
            f"swa_full_tokens_ratio is nan; wanted {A_RATIO}",
        ),
        (V4, {"c4_state_bytes": 8}, "bytes of a number of c4 state is 8; wanted 4 (f32) or 2 (bf16)"),
        (V4, {"c128_state_bytes": 1}, "bytes of a number of c128 state is 1; wanted 4 (f32) or 2 (bf16)"),
        (
            V4,
            {"draft_tokens": 11},
            "draft tokens is 11; wanted at most 10, for which the ring of 16 rows of a ratio-4 layer has room",
        ),
    ],
)
def test_options_that_cannot_be(geometry, options, text):
    """One sentence: what, its value, what is allowed."""
    with pytest.raises(PlanError) as caught:
        plan_pools(geometry, ONE, 20 * GIB, PlanOptions(**options))
    assert str(caught.value) == text


def test_requests_for_every_group():
    """Groups share the requests that run at once, so that there must be one for each."""
    with pytest.raises(PlanError, match=r"is 3; wanted an integer from 4 to \d+, because dp=4 groups share them$"):
        plan_pools(V32, World(dp=4), GIB, PlanOptions(max_running_requests=3))


def test_draft_tokens_that_only_ratio_128_layers_limit():
    """Without ratio-4 layers a ring of 256 rows takes 130 draft tokens; compressing online there is no ring."""
    config = {**DEEPSEEK_V4_FLASH, "num_hidden_layers": 2, "compress_ratios": [0, 128]}
    geometry, options = geometry_of(config, "c"), {"draft_layers": 0, "max_running_requests": 8}
    plan_pools(geometry, ONE, GIB, PlanOptions(draft_tokens=130, **options))
    with pytest.raises(PlanError, match="draft tokens is 131; wanted at most 130, for which the ring of 256 rows"):
        plan_pools(geometry, ONE, GIB, PlanOptions(draft_tokens=131, **options))
    plan_pools(geometry, ONE, GIB, PlanOptions(draft_tokens=131, online_c128=True, **options))
    window_only = geometry_of({**config, "compress_ratios": [0, 0]}, "c")
    plan_pools(window_only, ONE, GIB, PlanOptions(draft_tokens=200, **options))


@pytest.mark.parametrize(
    ("world", "memory", "text"),
    [
        (ONE, 0, f"memory for pools is 0; wanted {LEFT}"),
        (ONE, -5, f"memory for pools is -5; wanted {LEFT}"),
        (
            ONE,
            1e9,
            f"memory for pools is 1000000000.0; wanted {LEFT}",
        ),
        (
            World(pp=2),
            [GIB, 0],
            f"memory for pools in stage 1 is 0; wanted {LEFT}",
        ),
        (World(pp=2), [GIB], "memory for pools is 1 numbers; wanted one for each of 2 stages, or one for all"),
        (
            World(pp=2, tp=2),
            [GIB] * 3,
            "memory for pools is 3 numbers; wanted one for each of 4 ranks, one for each of 2 stages, or one for all",
        ),
        (World(pp=2, tp=2), [GIB, GIB, 0, GIB], f"memory for pools on rank 2 is 0; wanted {LEFT}"),
    ],
)
def test_memory_that_cannot_be(world, memory, text):
    """What weights leave nothing of, or numbers that are not one for each stage."""
    with pytest.raises(PlanError) as caught:
        plan_pools(V32, world, memory)
    assert str(caught.value) == text


def test_a_stage_without_room_is_named():
    """In a pipeline the error says which stage has no room."""
    with pytest.raises(PlanError, match=r"tokens that fit in the pools of a rank in stage 1 is 0; wanted at least 64"):
        plan_pools(V32, World(pp=2), [GIB, 1000])


def test_a_width_that_a_format_cannot_hold():
    """The layout's own error: 8 latent channels have no group of 128 that shares a scale; bf16 takes them."""
    odd = geometry_of({**DEEPSEEK_V32, "kv_lora_rank": 8}, "c")
    with pytest.raises(LayoutError, match="kv_lora_rank is 8; wanted a multiple of 128") as caught:
        plan_pools(odd, ONE, GIB)
    assert isinstance(caught.value, DsaError)
    assert plan_pools(odd, ONE, GIB, PlanOptions(kv="bf16")).ranks[0].pool("mla_kv").entry_bytes == 72 * 2


def notes_with(text, plan):
    return [note for note in plan.notes if text in note]


def test_notes_about_draft_layers():
    """A number that the file does not tell, ratios that it does not tell, where they are, and that there are none."""
    silent = geometry_of({**DEEPSEEK_V32, "num_nextn_predict_layers": None}, "c.json")
    speculative = PlanOptions(draft_tokens=2)
    assert notes_with("one draft layer is assumed", plan_pools(silent, ONE, 20 * GIB, speculative))
    assert not notes_with("draft layer", plan_pools(silent, ONE, 20 * GIB))
    assert not notes_with("assumed", plan_pools(silent, ONE, 20 * GIB, PlanOptions(draft_tokens=2, draft_layers=1)))
    assert not notes_with("draft layer", plan_pools(V32, ONE, 20 * GIB, speculative))
    none = plan_pools(V32, ONE, 20 * GIB, PlanOptions(draft_tokens=2, draft_layers=0))
    assert notes_with("Speculation is planned without caches for draft layers.", none)
    untold = PlanOptions(draft_tokens=2, draft_layers=3, max_running_requests=8)
    assert notes_with("2 draft layer(s) that compress_ratios does not tell", plan_pools(V4, ONE, 20 * GIB, untold))
    two_stages = plan_pools(V32, World(pp=2), 20 * GIB, PlanOptions(draft_tokens=2, draft_layers=2))
    assert notes_with("The last stage has what is drafted with, as layers 61 to 62.", two_stages)
    one = plan_pools(V32, World(pp=2), 20 * GIB, speculative)
    assert notes_with("The last stage has what is drafted with, as layer 61.", one)


def test_notes_about_requests_and_context():
    """Requests that cannot be shared out evenly, and a context for which there is no room."""
    odd = plan_pools(V32, World(dp=4), 20 * GIB, PlanOptions(max_running_requests=10))
    assert notes_with("Of max_running_requests=10, 2 cannot run: each of dp=4 groups takes 2.", odd)
    assert not notes_with("cannot run", plan_pools(V32, World(dp=5), 20 * GIB, PlanOptions(max_running_requests=10)))
    small = plan_pools(V32, ONE, GIB)
    assert notes_with(f"163840 tokens, does not fit: only {small.tokens} tokens do.", small)
    assert not notes_with("does not fit", plan_pools(V32, ONE, GIB, PlanOptions(context_tokens=small.tokens)))
    parts = plan_pools(V32, World(cp=2), GIB, PlanOptions(context_tokens=small.tokens * 2))
    assert not notes_with("does not fit", parts)


def test_the_equation_of_an_mla_model():
    """Every line has names, numbers and a result, which is what the plan says."""
    [rank] = plan_pools(V32, ONE, 20 * GIB).ranks
    lines = [str(term) for term in rank.terms]
    free = rank.memory_bytes - rank.bytes
    kv, keys = rank.pool("mla_kv").bytes, rank.pool("index_k").bytes
    published = "tokens without padding and extra pages"
    formula = f"floor(({20 * GIB} - 0) / 48068 / 64) * 64 = {20 * GIB // 48068 // 64 * 64}"
    limit = f"largest multiple of 64 whose pools take at most {20 * GIB}"
    assert lines == [
        "mla_kv = kv * layers = 656 * 61 = 40016 bytes/token",
        "index_k = index * layers with an indexer = 132 * 61 = 8052 bytes/token",
        "bytes_per_token = mla_kv + index_k = 40016 + 8052 = 48068 bytes/token",
        "extra pages = sum over pools of extra pages * page * layers = 1 * 41984 * 61 + 1 * 8448 * 61 = 3076352 bytes",
        f"{published} = floor((memory - state) / bytes_per_token / page) * page = {formula} tokens",
        f"tokens that fit = largest multiple of page whose pools fit = {limit} bytes = {rank.tokens} tokens",
        f"bytes = sum over pools of pages * page * layers = {kv} + {keys} = {rank.bytes} bytes",
        f"free = memory - bytes = {20 * GIB} - {rank.bytes} = {free} bytes",
    ]


def numbers_in(term):
    """What the numbers of a line come to, worked out by Python."""
    text = term.numbers.replace("floor", "int")
    return eval(text, {"clamp": lambda value, low, high: max(low, min(value, high)), "min": min})


@pytest.mark.parametrize(
    ("world", "options"),
    [
        (World(), {"max_running_requests": 64}),
        (World(pp=2, dp=3), {"max_running_requests": 200, "draft_tokens": 3, "swa_full_tokens_ratio": 0.8}),
        (World(cp=2), {"context_tokens": 4096, "max_tokens": 10**6}),
        (World(), {"kv": "bf16", "index_k": "fp4", "swa_full_tokens_ratio": 1, "max_running_requests": 8}),
        (World(), {"online_c128": True, "draft_tokens": 2, "page_tokens": 384, "max_running_requests": 8}),
    ],
)
def test_the_equation_of_v4_comes_out(world, options):
    """The numbers of every line give its result, and results are those of the plan."""
    for rank in plan_pools(V4, world, 60 * GIB, PlanOptions(**options)).stages:
        terms = {term.name: term for term in rank.terms}
        assert len(terms) == len(rank.terms)
        for name, term in terms.items():
            if not term.numbers.startswith(("largest", "least")):
                close = 1e-3 if term.unit == "bytes/token" else 1
                assert float(numbers_in(term)) == pytest.approx(float(term.value), abs=close), name
        for pool in rank.pools:
            cost = pool.exact_bytes_per_token if pool.entries_per_token else pool.bytes
            assert terms[pool.name].value == cost
        assert terms["bytes_per_token"].value == rank.exact_bytes_per_token
        assert terms["tokens that fit"].value == rank.fits_tokens
        assert terms["bytes"].value == rank.bytes
        assert terms["free"].value == rank.free_bytes
        assert terms["extra pages"].value == sum(pool.extra_bytes for pool in rank.pools if pool.entries_per_token)
        assert terms["padding"].value == rank.padding_bytes if rank.padding_bytes else "padding" not in terms
        if world.pp > 1:
            assert terms["tokens"].value == rank.tokens


def test_planning_needs_no_torch():
    """Importing the planner and planning leave torch unloaded."""
    code = (
        "import sys\n"
        "from dsa_exec.memory.geometry import geometry_of\n"
        "from dsa_exec.memory.plan_pools import plan_pools\n"
        "from dsa_exec.memory.plan_world import World\n"
        "config = {'model_type': 'deepseek_v4', 'num_hidden_layers': 2, 'compress_ratios': [4, 128]}\n"
        "plan_pools(geometry_of(config, 'config.json'), World(), 2**36)\n"
        "raise SystemExit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
