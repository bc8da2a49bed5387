"""Loading a checkpoint: whole, or a sentence that names the file and what is wrong with it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_tiny
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from dsa_exec.integrations.transformers import CheckpointError, load_checkpoint
from dsa_exec.integrations.transformers.bytes_tokenizer import BytesTokenizer

CPU = torch.device("cpu")
WRONG_SHAPE = r"the wrong shape for \S+indexer\S+ \(\[.*\] in the file, \[.*\] by config.json\) and"

LEFT_OVER = (
    r"the checkpoint has model.layers.1.input_layernorm.weight and \d+ more, for which the model by config.json has no "
    r"place \(num_hidden_layers is 1\)"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("original"), "deepseek_v32")


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "checkpoint"))


def change_config(folder: Path, **values) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def cut_config(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_text())
    layers = {name: value[:1] for name, value in document.items() if name.endswith("layer_types")}
    change_config(folder, num_hidden_layers=1, **layers)


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def drop_tensors(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layers.1.self_attn.indexer.w" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def add_tensors(*names: str):
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors") | {name: torch.zeros(3) for name in names}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def store_as(dtype: torch.dtype):
    def change(folder: Path) -> None:
        tensors = {name: it.to(dtype) for name, it in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def write(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def remove(name: str):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "the weights cannot be loaded: "),
        (remove("model.safetensors"), "the weights cannot be loaded: OSError"),
        (drop_tensors, "the checkpoint lacks model.layers.1.self_attn.indexer.weights_proj.weight and 2 more"),
        (lambda folder: change_config(folder, index_head_dim=64), WRONG_SHAPE),
        (
            lambda folder: change_config(folder, model_type="llama"),
            "model_type is 'llama'; deepseek_v32 and glm_moe_dsa",
        ),
        (lambda folder: change_config(folder, model_type=None), "model_type is None"),
        (lambda folder: change_config(folder, hidden_size="big"), "is not a configuration of deepseek_v32"),
        (write("config.json", "{"), "is not JSON: "),
        (write("config.json", "[]"), "is not a JSON object but a list"),
        (lambda folder: change_config(folder, quantization_config={"quant_method": "fp8"}), "as they were trained"),
        (lambda folder: change_config(folder, index_topk=0), "index_topk is 0; wanted an integer from 1 to 4096"),
        (lambda folder: change_config(folder, index_topk=-1), "index_topk is -1; wanted"),
        (lambda folder: change_config(folder, index_topk=4097), "index_topk is 4097; wanted an integer from 1 to 4096"),
        (cut_config, LEFT_OVER),
        (
            add_tensors("lm_head.bias"),
            "the checkpoint has lm_head.bias, for which the model by config.json has no place",
        ),
        (add_tensors("model.layers.2.enorm.weight"), "the checkpoint has model.layers.2.enorm.weight, for which"),
        (lambda folder: change_config(folder, dtype="float64"), "would be torch.float64; torch.float32, torch.bfloat1"),
        (store_as(torch.int8), r"holds lm_head.weight as I8 and \d+ more, and config.json has no quantization_config"),
        (store_as(torch.float8_e4m3fn), "holds lm_head.weight as F8_E4M3 and"),
        (remove("config.json"), "has no config.json"),
        (write("tokenizer.json", "{"), "the tokenizer cannot be loaded"),
    ],
)
def test_damage_is_told_in_a_sentence(folder, damage, words):
    """Truncated, incomplete, foreign or damaged: one line that names the folder or file."""
    damage(folder)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(folder))}.*({words})") as caught:
        load_checkpoint(folder, CPU)
    assert len(str(caught.value).splitlines()) == 1


def test_draft_layers_are_left_out(folder):
    """Layers after the last that join an embedding with a hidden state are no part of the model, as a note says."""
    add_tensors("model.layers.2.eh_proj.weight", "model.layers.2.enorm.weight", "model.layers.3.eh_proj.weight")(folder)
    loaded = load_checkpoint(folder, CPU)
    assert [note for note in loaded.notes if "draft" in note] == [
        "layer 2 of the checkpoint is a draft layer, which is left out",
        "layer 3 of the checkpoint is a draft layer, which is left out",
    ]
    add_tensors("model.layers.1.eh_proj.weight")(folder)
    with pytest.raises(CheckpointError, match=r"the checkpoint has model.layers.1.eh_proj.weight, for which"):
        load_checkpoint(folder, CPU)


def test_a_first_layer_that_shares_a_selection(tmp_path):
    """There is none before it."""
    folder = save_tiny(tmp_path, "glm_moe_dsa", indexer_types=["full", "shared"])
    assert load_checkpoint(folder, CPU).model.config.indexer_types == ["full", "shared"]
    change_config(folder, indexer_types=["shared", "full"])
    with pytest.raises(CheckpointError, match=r"config.json: indexer_types\[0\] is 'shared'; wanted 'full'"):
        load_checkpoint(folder, CPU)


@pytest.mark.parametrize(("name", "words"), [("nowhere", "there is no such folder"), ("file", "is a file; wanted")])
def test_what_is_no_folder(tmp_path, name, words):
    """A path that is not there, or is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path / name, CPU)


def test_without_a_tokenizer_bytes_are_tokens(folder, tmp_path):
    """A vocabulary of at least 256 can be bytes, which the notes say; a smaller one cannot."""
    loaded = load_checkpoint(str(folder), CPU)
    assert isinstance(loaded.tokenizer, BytesTokenizer)
    assert "bytes are used as tokens" in loaded.notes[0]
    small = save_tiny(tmp_path / "small", "deepseek_v32", vocab_size=255)
    with pytest.raises(CheckpointError, match="has no tokenizer, and vocab_size 255 is too small"):
        load_checkpoint(small, CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_is_ready_to_run(folder, dtype):
    """In evaluation mode, in the dtype that it is stored in."""
    store_as(dtype)(folder)
    change_config(folder, dtype=str(dtype).removeprefix("torch."))
    model = load_checkpoint(folder, CPU).model
    assert not [name for name, module in model.named_modules() if module.training]
    assert model.dtype == dtype


def test_the_checkpoints_own_tokenizer_is_used(folder):
    """A tokenizer that lies beside the weights is loaded, and nothing is noted."""
    words = Tokenizer(WordLevel({"[UNK]": 0, "sparse": 1, "attention": 2}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    loaded = load_checkpoint(folder, CPU)
    assert loaded.tokenizer.encode("sparse") == [1]
    assert loaded.notes == ()


def test_bytes_and_back():
    """Text survives; halves of characters and tokens that are no bytes are shown or left out, never an error."""
    tokenizer = BytesTokenizer()
    text = "grüße \N{SNOWMAN}"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([0xE2, 0x98]) == "\N{REPLACEMENT CHARACTER}"
    assert tokenizer.decode([65, 300, 66]) == "AB"
    assert tokenizer.decode([255, 256]) == "\N{REPLACEMENT CHARACTER}"
    assert tokenizer.decode([256], skip_special_tokens=False) == "<256>"
    assert tokenizer.decode([65, 300, 66], skip_special_tokens=False) == "A<300>B"
