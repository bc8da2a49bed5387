"""An operator's dotenv file with a slip and an old name: checked, and migrated."""

import pathlib
import subprocess
import sys
import tempfile


def dsa(*arguments: str) -> None:
    """Run the command `dsa config ...` and print what it says."""
    command = [sys.executable, "-c", "from dsa_exec.cli import main; main()", "config", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"$ dsa config {' '.join(arguments[:-1])} .env")
    print((done.stdout + done.stderr).replace(arguments[-1], ".env").strip())
    print(f"exit status {done.returncode}\n")


with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, ".env")
    file.write_text("# top-k\nSGLANG_NSA_FUSE_TOPK=0  # for now\nSGLANG_DSA_KV_FROMAT=model\n")
    dsa("check", "--dotenv", str(file))
    dsa("migrate", "--write", str(file))
    print(file.read_text())
