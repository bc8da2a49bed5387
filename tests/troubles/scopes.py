"""Changes that come too late, scopes that stay open, classes that are declared wrongly."""

from __future__ import annotations

import subprocess
import sys

import torch
from plugin_runs import plugin
from pydantic_settings import SettingsConfigDict

from dsa_config import LiveSettings, live, setting, settings
from dsa_exec import IndexKCache
from dsa_exec.runtime.capture import capture_step
from dsa_exec.runtime.step import prepare_step
from dsa_exec.runtime.step_copies import StepCopies
from troubles import produces


@produces("TooLate")
def a_format_after_the_cache(settings_set):
    settings_set(index_k_format="fp8")
    cache = IndexKCache.allocate(64, device="cpu", model_dtype=torch.bfloat16)
    settings_set(index_k_format="model")
    del cache


@produces("Stale")
def a_setting_after_the_capture(settings_override):
    with settings.record_reads() as recorded:
        assert settings.fuse_topk is True
    settings_override(fuse_topk=False)
    recorded.guard("the decode graph").check()


class _Stand:
    def capture(self, run):
        return run()


@produces("UnsteadyCapture")
def a_setting_within_the_capture():
    def layers():
        with settings.override(fuse_topk=not settings.fuse_topk):
            return settings.fuse_topk

    capture_step(layers, lambda: None, what="the decode graph", graph=_Stand())


@produces("DeclarationError")
def no_default():
    class Engine(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="ENGINE_")
        chunk_tokens: int

    live(Engine)


@produces("DeclarationError")
def a_default_that_is_not_allowed():
    class Engine(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="ENGINE_")
        chunk_tokens: int = setting(0, ge=1)

    live(Engine)


@produces("CopiesInCapture")
def copies_made_within_a_capture(monkeypatch):
    lens, pages = torch.tensor([10]), torch.tensor([[0]], dtype=torch.int32)
    first, second = (prepare_step("decode", lens, pages, index_topk=64) for _ in range(2))
    monkeypatch.setattr("dsa_exec.runtime.step_copies.is_capturing", lambda _: True)
    StepCopies(first, [second])


@produces("SettingsLeak")
def a_test_that_leaves_an_override(tmp_path):
    body = "from dsa_config import settings\n\n\ndef test_guilty():\n    settings.set(fuse_topk=False)\n"
    (tmp_path / "test_it.py").write_text(body)
    command = [sys.executable, "-m", "pytest", *plugin(), "-q", "-p", "no:cacheprovider", "test_it.py"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
