"""What `dsa plan` says of wrong input: one sentence with what came and what is wanted, and exit code 2."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import dsa_exec

MODELS = Path(dsa_exec.__file__).parents[1] / "examples" / "plan"
V32, V4 = (str(MODELS / name) for name in ("deepseek_v32.json", "deepseek_v4_flash.json"))


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (
            V32,
            "--gpu-mem 141g",
            "--gpu-mem '141g': 'g' is no unit; wanted a number of bytes, or a number with KiB, MiB",
        ),
        (V32, "--gpu-mem 0", "--gpu-mem '0': is less than 1 byte; wanted "),
        (V32, "--gpu-mem -5GiB", "--gpu-mem '-5GiB': is no size; wanted "),
        (V32, "--weights lots", "--weights 'lots': is no size; wanted "),
        (
            V32,
            "--mem-fraction-static 90",
            "--mem-fraction-static '90': is out of range; wanted a number above 0 and at",
        ),
        (V32, "--mem-fraction-static nan", "--mem-fraction-static 'nan': is no such number; wanted a number above 0"),
        (V32, "--tp 0", "--tp '0': is out of range; wanted a whole number from 1 to "),
        (V32, "--tp x", "--tp 'x': is no such number; wanted a whole number from 1 to "),
        (V32, "--pp -1", "--pp '-1': is no such number; wanted "),
        (V32, "--dp 0", "--dp '0': is out of range; wanted "),
        (V32, "--cp 1.5", "--cp '1.5': is no such number; wanted "),
        (V32, "--tp 6 --dp 4", "dp * cp is 4; wanted a divisor of tp=6"),
        (V32, "--pp 62", "pp is 62; wanted at most 61, the model's layers"),
        (V32, "--tp 1024 --pp 61", "--tp 1024 --pp 61 --dp 1 --cp 1 are 62464 ranks; wanted at most 16384"),
        (V32, "--pp 2 --stage-layers 30,30", "layers of each stage is 30,30; wanted a sum of 61"),
        (V32, "--stage-layers 30,x", "--stage-layers 'x': is no such number; wanted "),
        (V32, "--kv-dtype fp16", "--kv-dtype 'fp16': is unknown; wanted one of fp8, bf16, fp8-raw"),
        (V32, "--page-size 0", "--page-size '0': is out of range; wanted "),
        (V32, "--draft-tokens -1", "--draft-tokens '-1': is no such number; wanted a whole number from 0 to "),
        (V32, "--draft-layers two", "--draft-layers 'two': is no such number; wanted a whole number from 0 to "),
        (V32, "--max-running-requests 0", "--max-running-requests '0': is out of range; wanted "),
        (V32, "--max-tokens 0", "--max-tokens '0': is out of range; wanted "),
        (V32, "--max-tokens 63", "wanted at least 64, one page. Raise max tokens from 63 to at least 64"),
        (V32, "--context 3000000000", "--context '3000000000': is out of range; wanted "),
        (V32, "--prefill 1K,,2K", "--prefill '': is no such number; wanted "),
        (V32, "--index-k-dtype fp4", "index-K format is fp4; wanted fp8 for deepseek_v32"),
        (V32, "--state-dtype f64", "--state-dtype 'f64': is unknown; wanted one of f32, bf16"),
        (V4, "--page-size 64", "page size is 64; wanted a multiple of 128 tokens"),
        (V4, "--draft-tokens 11", "draft tokens is 11; wanted at most 10"),
        (V4, "--swa-full-tokens-ratio 0", "--swa-full-tokens-ratio '0': is out of range; wanted "),
    ],
)
def test_options_that_cannot_be_read_or_do_not_fit(dsa, expect_sentence, model, options, words):
    """The option, the text and what is allowed; the same with --json, whose standard output stays empty."""
    memory = [] if "--gpu-mem" in options else ["--gpu-mem", "141GiB"]
    expect_sentence(dsa("plan", "--model", model, *memory, *options.split(), "--json"), words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not there; --model takes a config.json or a folder that has one"),
        (b"", "is no JSON: Expecting value at line 1, column 1"),
        (b"\xff{}", "is no UTF-8 text: invalid start byte at byte 0"),
        (b"[]", "holds no JSON object at its top, but list"),
        (b"[" * 100_000, "is nested too deep"),
        (b"{}", "model_type is absent; wanted one of deepseek_v32, glm_moe_dsa, deepseek_v4"),
        (b'{"model_type": "llama"}', "model_type is 'llama'; wanted one of deepseek_v32, glm_moe_dsa, deepseek_v4"),
        (b'{"model_type": "deepseek_v32", "num_hidden_layers": "61"}', "num_hidden_layers is '61'; wanted an integer"),
    ],
)
def test_configurations_that_are_none(dsa, expect_sentence, tmp_path, content, words):
    """The file, and what is wrong with it."""
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content)
    expect_sentence(dsa("plan", "--model", str(file), "--gpu-mem", "80GB"), f"dsa: {file}: ", words)


def test_a_folder_without_a_configuration(dsa, expect_sentence, tmp_path):
    """Both what was looked for and where."""
    expect_sentence(dsa("plan", "--model", str(tmp_path), "--gpu-mem", "80GB"), f"{tmp_path}: has no config.json")
    (tmp_path / "config.json").mkdir()
    expect_sentence(dsa("plan", "--model", str(tmp_path), "--gpu-mem", "80GB"), "cannot be read: Is a directory")


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{", "is no JSON"),
        ("{}", "has no positive whole number at metadata.total_size, but null; --weights SIZE"),
        ('{"metadata": {"total_size": "9"}}', 'at metadata.total_size, but "9"; --weights SIZE'),
        ('{"metadata": {"total_size": -9}}', "at metadata.total_size, but -9; --weights SIZE"),
    ],
)
def test_an_index_that_does_not_say_the_size(dsa, expect_sentence, tmp_path, index, words):
    """It is not counted as 0; with --weights nobody looks at it."""
    (tmp_path / "config.json").write_text(Path(V32).read_text())
    (tmp_path / "model.safetensors.index.json").write_text(index)
    arguments = ["plan", "--model", str(tmp_path), "--gpu-mem", "80GB"]
    expect_sentence(dsa(*arguments), "model.safetensors.index.json: ", words)
    assert dsa(*arguments, "--weights", "1GB").code == 0


def test_weights_that_leave_nothing(dsa, expect_sentence):
    """How much is missing, and what to change; exactly as much as the weights is too little, one byte more is not."""
    base = ["plan", "--model", V32, "--gpu-mem", "100000000"]
    parts = (
        "no memory is left for pools: 95.4 MiB x 0.9 (the default) = 85.8 MiB, and weights take 90.6 MiB: ",
        "90.6 MiB: 5000001 bytes (4.8 MiB) too few; ",
        "wanted a --mem-fraction-static above 0.95, or a larger --tp or --pp, which divides the weights",
    )
    expect_sentence(dsa(*base, "--weights", "95000000"), *parts)
    expect_sentence(dsa(*base, "--weights", "90000000"), "1 byte too few; wanted a --mem-fraction-static above 0.9, or")
    expect_sentence(dsa(*base, "--weights", "89999999"), "tokens that fit in the pools of a rank is 0; wanted at least")
    expect_sentence(dsa(*base, "--weights", "200000000"), "bytes (104.9 MiB) too few; wanted a larger --tp or --pp")


def test_nothing_fits(dsa, expect_sentence):
    """Not one page of tokens, or no room for one request's window: what is missing, exit code 2."""
    expect_sentence(
        dsa("plan", "--model", V32, "--gpu-mem", "1MiB"),
        "tokens that fit in the pools of a rank is 0; wanted at least 64, one page. Give its pools ",
    )
    expect_sentence(
        dsa("plan", "--model", V4, "--gpu-mem", "40GiB", "--swa-full-tokens-ratio", "0.0001"),
        "tokens of the sliding-window pool of a rank is ",
        "Raise swa_full_tokens_ratio from 0.0001 to ",
    )


def test_a_setting_that_cannot_be_read(dsa, expect_sentence):
    """It is an error with its variable, and not the default."""
    done = dsa("plan", "--model", V32, "--gpu-mem", "80GB", SGLANG_DSA_MEM_FRACTION_STATIC="much")
    expect_sentence(done, "SGLANG_DSA_MEM_FRACTION_STATIC='much'")
    done = dsa("plan", "--model", V32, "--gpu-mem", "80GB", SGLANG_DSA_MEM_FRACTION_STATIC="0")
    expect_sentence(done, "no memory is left for pools: 74.5 GiB x 0 (the setting mem_fraction_static, environment")


def test_options_that_are_missing_or_unknown(dsa):
    """The command line's own errors: exit code 2 and the option's name."""
    for arguments, words in (
        (["--gpu-mem", "80GB"], "Missing option '--model'"),
        (["--model", V32], "Missing option '--gpu-mem'"),
        (["--model", V32, "--gpu-mem", "80GB", "--bogus"], "No such option: --bogus"),
    ):
        done = dsa("plan", *arguments)
        assert (done.code, done.out) == (2, "")
        assert words in done.err
        assert "Traceback" not in done.err


def test_hostile_text(dsa, tmp_path):
    """A configuration's words and a file's name cannot steer the terminal, and are in JSON whatever they are of."""
    config = json.loads(Path(V4).read_text())
    del config["compress_ratios"]
    config["layer_types"] = ["\x1b[31mred \ud800"] + ["compressed_sparse_attention"] * 42
    folder = tmp_path / os.fsdecode(b"caf\xe9\x1b")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    done = dsa("plan", "--model", str(folder), "--gpu-mem", "141GiB")
    assert (done.code, done.err) == (0, "")
    assert "red" in done.out
    assert "\x1b" not in done.out
    document = dsa("plan", "--model", str(folder), "--gpu-mem", "141GiB", "--json").json
    assert document["model"]["file"].endswith("caf\\udce9\x1b/config.json")
    assert any("red \\ud800" in note for note in document["notes"])
