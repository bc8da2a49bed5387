"""What fits on eight GPUs: three models, as `dsa plan` tells it, and one number of its JSON document.

The configurations beside this file have what a plan needs of the published ones, and nothing else.
"""

import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def dsa_plan(model: str, *arguments: str) -> str:
    """Run the command `dsa plan ...` on one of the configurations."""
    command = [sys.executable, "-c", "from dsa_exec.cli import main; main()", "plan", "--model", str(HERE / model)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True).stdout


for model, options in {
    "deepseek_v32.json": "--gpu-mem 141GiB --tp 8 --weights 82GiB",
    "glm_5.json": "--gpu-mem 141GiB --tp 8 --pp 2 --weights 46GiB --context 128K",
    "deepseek_v4_flash.json": "--gpu-mem 80GiB --tp 4 --weights 40GiB --draft-tokens 4 --max-running-requests 64",
}.items():
    print(f"$ dsa plan --model {model} {options}")
    print(dsa_plan(model, *options.split()).replace(f"{HERE}/", ""))

document = json.loads(dsa_plan("deepseek_v32.json", "--gpu-mem", "141GiB", "--tp", "8", "--json"))
assert document["bytes_per_token"] == 61 * (656 + 132)
print(f"a token of DeepSeek-V3.2 takes {document['bytes_per_token']} bytes on each rank")
