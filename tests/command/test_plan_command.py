"""`dsa plan`: how much fits in the memory of the ranks of a deployment, and why."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]
SCHEMA = ROOT / "schemas" / "plan.schema.json"
MODELS = ROOT / "examples" / "plan"
V32, GLM, V4 = (str(MODELS / name) for name in ("deepseek_v32.json", "glm_5.json", "deepseek_v4_flash.json"))
PROGRAM = "from dsa_exec.cli import main; main()"
GIB = 2**30


@pytest.fixture(scope="module")
def document(dsa):
    """Runs the command with --json; standard output must be what the committed schema describes."""
    validator = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))

    def run(*arguments: str, **environment: str) -> dict[str, Any]:
        done = dsa("plan", *arguments, "--json", **environment)
        assert (done.code, done.err) == (0, "")
        validator.validate(done.json)
        return done.json

    return run


def origins(document: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    """Each input's value, and where it came from."""
    return {it["name"]: (it["value"], it["origin"]) for it in document["inputs"]}


def test_deepseek_v32_on_one_stage(document):
    """61 layers of 656 and 132 bytes a token; memory is gpu-mem x 0.9 less the weights, and the pools fill it."""
    it = document("--model", V32, "--gpu-mem", "141GiB", "--tp", "8", "--weights", "82GiB")
    assert it["bytes_per_token"] == 48068
    assert {pool["name"]: pool["bytes_per_token"] for pool in it["pools"]} == {
        "mla_kv": 61 * 656,
        "index_k": 61 * 132,
    }
    static = 141 * GIB * 9 // 10
    assert it["memory"] == {
        "gpu_bytes": 141 * GIB,
        "static_bytes": static,
        "weights_bytes": 82 * GIB,
        "weights_are_estimated": False,
        "pools_bytes": static - 82 * GIB,
        "dynamic_bytes": 141 * GIB - static,
    }
    (group,) = it["ranks"]
    assert (group["name"], group["ranks"], group["layers"]) == ("tp 0-7", list(range(8)), [0, 61])
    pages = it["tokens"] // 64
    assert it["tokens"] == pages * 64
    assert group["pools_bytes"] == (pages + 1) * 64 * 48068 <= static - 82 * GIB < (pages + 2) * 64 * 48068
    assert group["pools_bytes"] == sum(pool["bytes"] for pool in group["pools"])
    assert group["free_bytes"] == static - 82 * GIB - group["pools_bytes"]


@pytest.mark.parametrize(("kv", "bytes_"), [("fp8", 656), ("bf16", 1152), ("fp8-raw", 576)])
def test_kv_formats(document, kv, bytes_):
    """`--kv-dtype` decides what a cached token takes."""
    it = document("--model", V32, "--gpu-mem", "80GiB", "--kv-dtype", kv)
    assert it["bytes_per_token"] == 61 * (bytes_ + 132)
    assert origins(it)["kv_dtype"] == (kv, "--kv-dtype")


def test_pipeline_stages_have_a_row_each(document):
    """Their layers add up; the stage with least room says how many tokens all hold, and what it could not have more."""
    it = document("--model", GLM, "--gpu-mem", "141GiB", "--tp", "8", "--pp", "4")
    assert [group["name"] for group in it["ranks"]] == [f"pp {pp}, tp 0-7" for pp in range(4)]
    assert [group["layers"] for group in it["ranks"]] == [[0, 20], [20, 40], [40, 59], [59, 78]]
    assert sum(group["bytes_per_token"] for group in it["ranks"]) == it["bytes_per_token"] == 78 * 788
    assert [group["is_limit"] for group in it["ranks"]] == [True, False, False, False]
    assert it["tokens"] == it["ranks"][0]["fits_tokens"] < it["ranks"][3]["fits_tokens"]
    assert [rank for group in it["ranks"] for rank in group["ranks"]] == list(range(32))
    uneven = document("--model", GLM, "--gpu-mem", "141GiB", "--pp", "2", "--stage-layers", "30,48")
    assert [group["layers"] for group in uneven["ranks"]] == [[0, 30], [30, 78]]


def test_groups_of_requests_and_parts_of_contexts(document):
    """Each dp group has tokens of its own, cp parts share a context; what fits counts whole pages of each part."""
    it = document("--model", V32, "--gpu-mem", "80GiB", "--tp", "8", "--dp", "2", "--cp", "4", "--context", "10000")
    assert it["ranks"][0]["name"] == "dp 0-1, cp 0-3"
    assert it["tokens_per_group"] == 4 * it["tokens"]
    assert it["tokens_in_all"] == 8 * it["tokens"]
    last = it["fits"][-1]
    assert last["context_tokens"] == 10000
    assert last["requests_per_group"] == it["tokens"] // 2560  # 2500 tokens in each part, in pages of 64
    assert last["requests"] == 2 * last["requests_per_group"]


def test_deepseek_v4_with_speculation(document):
    """Its seven pools, as the configuration's ratios say; the draft layer has a window; drafts count in what fits."""
    base = ["--model", V4, "--gpu-mem", "80GiB", "--weights", "40GiB", "--max-running-requests", "256"]
    it = document(*base, "--draft-tokens", "4", "--draft-layers", "1")
    assert {pool["name"]: pool["layers"] for pool in it["pools"]} == {
        "swa_kv": 44,
        "c4_kv": 21,
        "c128_kv": 20,
        "c4_index_k": 21,
        "c4_state": 21,
        "c4_index_state": 21,
        "c128_state": 20,
    }
    assert it["model"]["compress_ratios"] == {"0": 2, "4": 21, "128": 20}
    assert it["page_tokens"] == 256
    assert it["ranks"][0]["max_requests"] == 256
    shortest, longest = it["fits"][0], it["fits"][-1]
    assert (shortest["requests"], shortest["limit"]) == (256, "max_running_requests")
    assert longest["context_tokens"] == 2**20
    assert longest["requests"] == it["tokens"] // (2**20 + 256)  # a page more for four draft tokens
    without = document(*base)
    assert without["tokens"] > it["tokens"]
    assert without["pools"][0]["layers"] == 43


def test_v4_requests_are_limited_by_the_window_and_by_state(document):
    """A short context is limited by what the sliding-window pool or the state of requests has room for."""
    it = document("--model", V4, "--gpu-mem", "80GiB", "--weights", "40GiB", "--swa-full-tokens-ratio", "0.01")
    (window,) = (pool for pool in it["ranks"][0]["pools"] if pool["name"] == "swa_kv")
    assert it["fits"][0]["limit"] == "sliding-window pool"
    assert it["fits"][0]["requests"] == window["entries"] // 512
    much = document("--model", V4, "--gpu-mem", "900GiB", "--swa-full-tokens-ratio", "1")
    assert much["fits"][0]["limit"] == "state for requests, estimated"
    assert much["fits"][0]["requests"] == much["ranks"][0]["max_requests"] == 4096


def test_options_of_v4(document):
    """The formats of index keys and of state change the bytes of an entry; a running state takes less than a ring."""
    base = ["--model", V4, "--gpu-mem", "141GiB", "--max-running-requests", "64"]

    def pools(*options: str) -> dict[str, Any]:
        (group,) = document(*base, *options)["ranks"]
        return {pool["name"]: pool for pool in group["pools"]}

    usual = pools()
    assert usual["c4_index_k"]["entry_bytes"] == 132
    assert pools("--index-k-dtype", "fp4")["c4_index_k"]["entry_bytes"] == 68
    halved = pools("--state-dtype", "bf16")
    for name in ("c4_state", "c4_index_state", "c128_state"):
        assert halved[name]["entry_bytes"] * 2 == usual[name]["entry_bytes"]
    assert pools("--online-c128")["c128_state"]["bytes"] < usual["c128_state"]["bytes"] // 50


def test_a_limit_for_tokens_and_another_page(document):
    """`--max-tokens` and `--page-size` are kept to."""
    it = document("--model", V32, "--gpu-mem", "141GiB", "--max-tokens", "1M", "--page-size", "32")
    assert (it["tokens"], it["page_tokens"]) == (2**20, 32)
    assert it["fits"][0] == {
        "context_tokens": 4096,
        "requests": 256,
        "requests_per_group": 256,
        "limit": "tokens",
    }


def test_where_the_weights_come_from(document, tmp_path):
    """`--weights`; else an even share of the checkpoint's index, called an estimate; else 0, and a note says so."""
    model = tmp_path / "checkpoint"
    model.mkdir()
    (model / "config.json").write_text(Path(V32).read_text())
    base = ["--model", str(model), "--gpu-mem", "141GiB", "--tp", "4", "--pp", "2"]
    absent = document(*base)
    assert absent["memory"]["weights_bytes"] == 0
    assert absent["notes"][0].startswith("Weights count as 0, because no checkpoint index lies beside")
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 8 * GIB + 1}}))
    shared = document(*base)
    assert shared["memory"]["weights_bytes"] == GIB + 1
    assert shared["memory"]["weights_are_estimated"] is True
    assert shared["notes"][0].startswith("Weights are estimated as an even share of the checkpoint's 8.0 GiB")
    assert origins(shared)["weights"][1].endswith(f"index.json: {8 * GIB + 1} bytes / (tp 4 * pp 2)")
    said = document(*base, "--weights", "2GiB")
    assert origins(said)["weights"] == (2 * GIB, "--weights")
    assert not [note for note in said["notes"] if "eights" in note]


def test_where_mem_fraction_static_comes_from(document):
    """The option, else the setting with where it was set, else 0.9. The product is exact."""
    base = ["--model", V32, "--gpu-mem", "100000000010"]
    assert origins(document(*base))["mem_fraction_static"] == (0.9, "the default")
    assert document(*base)["memory"]["static_bytes"] == 90000000009
    variable = {"SGLANG_DSA_MEM_FRACTION_STATIC": "0.7"}
    value, origin = origins(document(*base, **variable))["mem_fraction_static"]
    assert value == 0.7
    assert origin == "the setting mem_fraction_static, environment variable SGLANG_DSA_MEM_FRACTION_STATIC"
    both = document(*base, "--mem-fraction-static", "0.8", **variable)
    assert origins(both)["mem_fraction_static"] == (0.8, "--mem-fraction-static")
    assert both["memory"]["static_bytes"] == 80000000008


def test_logits_under_the_budget_of_a_capture(document):
    """The static budget, as where a graph is captured; prefills with more rows than context are left out."""
    it = document("--model", V32, "--gpu-mem", "141GiB", "--prefill", "8K,1024,8192", "--context", "5000")
    assert it["logits_budget"]["bytes"] == it["logits_budget"]["static_bytes"] == 3027951943
    assert it["logits_budget"]["cap_bytes"] is None
    assert [(cell["context_tokens"], cell["rows"]) for cell in it["logits"]] == [(4096, 1024), (5000, 1024)]
    first = it["logits"][0]
    assert (first["chunks"], first["keys"], first["is_over_budget"]) == (1, 4096, False)


def test_logits_under_the_settings(document):
    """Chunks follow from the absolute limit and the share of free memory; less than a row is told, not hidden."""
    base = ["--model", V32, "--gpu-mem", "141GiB", "--prefill", "1024"]
    capped = document(*base, SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES=str(128 * 2**20))
    assert capped["logits_budget"]["bytes"] == capped["logits_budget"]["cap_bytes"] == 128 * 2**20
    for cell in capped["logits"]:
        assert cell["peak_bytes"] <= 128 * 2**20
        assert cell["chunks"] == -(-1024 // cell["rows_per_chunk"])
    assert capped["logits"][-1]["chunks"] > 1
    tiny = document(*base, SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION="1e-9")
    assert {(cell["rows_per_chunk"], cell["is_over_budget"]) for cell in tiny["logits"]} == {(1, True)}


def test_v4_scores_compressed_keys(document):
    """Four tokens of its context share an index key."""
    it = document("--model", V4, "--gpu-mem", "141GiB", "--context", "64K", "--prefill", "4096")
    assert [(cell["context_tokens"], cell["keys"]) for cell in it["logits"]][-1] == (65536, 16384)


def test_stages_that_are_alike_share_an_equation(dsa):
    """Neighbours of the same size are told once, and no stage has room that another has not."""
    done = dsa("plan", "--model", GLM, "--gpu-mem", "80GiB", "--tp", "8", "--pp", "4", "--explain")
    assert done.out.count("\nequation of ") == 2
    assert "\nequation of pp 0, tp 0-7 to pp 1, tp 0-7\n" in done.out
    assert "\nequation of pp 2, tp 0-7 to pp 3, tp 0-7\n" in done.out
    assert done.out.count(" left over, room for ") == 2


def test_short_contexts(dsa, document):
    """A prefill has no more rows than the context; where none is left, the text says so."""
    base = ["--model", V32, "--gpu-mem", "80GiB", "--context", "1000"]
    it = document(*base)
    assert [cell["context_tokens"] for cell in it["fits"]] == [1000]
    assert it["logits"] == []
    said = "indexer logits: every prefill has more rows than the longest context (--prefill)"
    assert said in dsa("plan", *base).out
    assert said not in dsa("plan", *base, "--prefill", "100").out


def test_the_text_has_everything(dsa):
    """Memory, ranks, pools with their products, what fits, logits, notes; the equation only with --explain."""
    arguments = ["plan", "--model", V4, "--gpu-mem", "80GB", "--pp", "2", "--weights", "20GB"]
    done = dsa(*arguments)
    assert (done.code, done.err) == (0, "")
    for words in (
        "deepseek_v4, 43 layers (2 of ratio 0, 21 of ratio 4, 20 of ratio 128), contexts to 1M tokens",
        "(mem_fraction_static: the default)",
        "of weights (--weights)",
        "\npp 0: layers [0,22) ",
        "\npp 1: layers [22,43) ",
        "c128_kv ",
        " x (2 x 584 bytes + 560 of padding)",
        "\nrequests at once\n",
        "\nindexer logits: chunks of rows, and their peak; budget ",
        "\nnote: ",
    ):
        assert words in done.out, words
    assert "\nequation of" not in done.out
    assert "\x1b" not in done.out
    explained = dsa(*arguments, "--explain").out
    assert "\nequation of pp 0\n" in explained
    assert "\n  c4_kv = kv / 4 * ratio-4 layers = 584 / 4 * 10 = 1460 bytes/token\n" in explained


def test_notes_about_what_is_planned_otherwise(document):
    """Settings by which this project allocates other caches, and a context beyond the model's, are told."""
    variables = {"SGLANG_DSA_KV_FORMAT": "model", "SGLANG_DSA_INDEX_K_FORMAT": "model"}
    notes = document("--model", V32, "--gpu-mem", "80GiB", "--context", "200K", **variables)["notes"]
    assert "--context 204800 is more than the 163840 positions of the model." in notes
    assert any(note.startswith("kv_format=model (environment variable SGLANG_DSA_KV_FORMAT)") for note in notes)
    assert any(note.startswith("index_k_format=model (environment variable") for note in notes)
    same = document("--model", V32, "--gpu-mem", "80GiB", "--kv-dtype", "bf16", **variables)["notes"]
    assert not any(note.startswith("kv_format") for note in same)


STARTED = """
import sys, time
from dsa_exec.cli import main
sys.argv = {arguments!r}
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = [name for name in ("torch", "transformers", "triton", "numpy", "matplotlib") if name in sys.modules]
print(time.process_time(), *heavy, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--model", V32, "--gpu-mem", "141GiB", "--tp", "8", "--pp", "2", "--explain"],
        ["plan", "--model", V4, "--gpu-mem", "141GiB", "--pp", "43", "--json"],
        ["plan", "--help"],
        ["--help"],
    ],
    ids=lambda it: " ".join(it[:1] + it[-1:]),
)
def test_answers_at_once_without_torch(arguments):
    """Neither torch nor transformers, triton, numpy or matplotlib is imported; the process computes for less than 1 s.

    The least of three runs, because what else a machine does slows processors down.
    """
    seconds = []
    for _ in range(3):
        program = STARTED.format(arguments=["dsa", *arguments])
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        took, *heavy = done.stderr.split()
        assert heavy == []
        seconds.append(float(took))
        if seconds[-1] < 1:
            break
    assert min(seconds) < 1


def test_the_help_page_has_every_option_and_the_exit_codes(dsa):
    """And what each takes."""
    done = dsa("plan", "--help", COLUMNS="120")
    options = """model gpu-mem tp pp dp cp mem-fraction-static weights kv-dtype page-size stage-layers draft-tokens
        draft-layers max-running-requests max-tokens context prefill swa-full-tokens-ratio index-k-dtype state-dtype
        online-c128 explain json plot"""
    for option in options.split():
        assert f"--{option} " in done.out, option
    words = " ".join(done.out.split())
    assert "Exits with 0 if there is a plan, 2 if what was given is wrong or nothing fits, 1 if the output" in words


def test_streams_that_do_not_work():
    """An output that is full, closed, or closed early is no traceback, as JSON and as tables."""
    command = f"{shlex.quote(sys.executable)} -c '{PROGRAM}' plan --model {shlex.quote(V4)} --gpu-mem 141GiB"
    for form in ("", "--json"):
        told = {}
        for how in ("> /dev/full", "| head -c 1", ">&-"):
            script = ["bash", "-c", f"{command} {form} {how}"]
            done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
            assert "Traceback" not in done.stderr
            told[how] = (done.stdout, done.stderr, done.returncode)
        assert told["> /dev/full"] == ("", "dsa: cannot write the output: No space left on device\n", 1)
        assert len(told["| head -c 1"][0]) == 1
        assert told[">&-"] == ("", "", 0)


def test_interrupted():
    """Ctrl-C ends the command with 130 and a word."""
    sends = (
        "import os, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import dsa_exec.cli.plan.planning as planning; "
        "planning.geometry_of = lambda *_: (os.kill(os.getpid(), signal.SIGINT), time.sleep(9))"
    )
    program = PROGRAM.replace("main()", f"{sends}; main()")
    command = [sys.executable, "-c", program, "plan", "--model", V32, "--gpu-mem", "80GiB"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip().endswith("dsa: interrupted")
    assert "Traceback" not in done.stderr
