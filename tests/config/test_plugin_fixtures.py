"""The plugin's fixtures: values for one test, and what was there before it after it."""

from __future__ import annotations

import subprocess
import sys

from plugin_runs import plugin, run

from dsa_config import settings

pytest_plugins = ["pytester"]


def test_settings_set_holds_for_the_process_and_is_taken_back(pytester):
    """Threads see it; afterwards the settings have their earlier process values, or none."""
    settings.set(mqa_logits_max_chunk_bytes=5)
    result = run(
        pytester,
        """
        from concurrent.futures import ThreadPoolExecutor
        from dsa_config import BadValue, UnknownSetting

        class Mine(LiveSettings):
            depth: int = setting(1)

        def test_set(settings_set):
            settings_set(fuse_topk=False, mqa_logits_max_chunk_bytes=6)
            settings_set(mqa_logits_max_chunk_bytes=7)
            settings_set(live(Mine), depth=2)
            with pytest.raises(BadValue, match="test_settings_set_holds.*py:.*is not a boolean"):
                settings_set(use_aiter="maybe")
            with pytest.raises(UnknownSetting):
                settings_set(nothing=1)
            with ThreadPoolExecutor() as pool:
                assert pool.submit(lambda: settings.fuse_topk).result() is False
            assert (settings.mqa_logits_max_chunk_bytes, live(Mine).depth) == (7, 2)

        def test_back_again():
            assert (settings.mqa_logits_max_chunk_bytes, live(Mine).depth) == (5, 1)
            assert settings.explain("fuse_topk").source == "default"
        """,
    )
    result.assert_outcomes(passed=2)


def test_settings_load_loads_for_one_test(pytester):
    """Sources, and what is said of names, are as before afterwards: what was loaded, or nothing."""
    pytester.makefile(".toml", one="use_aiter = true", two="kv_format = 'model'")
    result = run(
        pytester,
        """
        class Mine(LiveSettings):
            use_aiter: bool = setting(False)

        @pytest.fixture(scope="module", autouse=True)
        def loaded():
            settings.load(file="one.toml")
            yield
            settings.load(file=None)

        def test_load(settings_load):
            settings_load(file="two.toml")
            assert (settings.use_aiter, settings.kv_format) == (False, "model")
            settings_load(file=None, fatal_conflicts=True)
            assert (settings.use_aiter, settings.kv_format) == (False, "fp8")
            settings_load(live(Mine), file="one.toml")
            assert live(Mine).use_aiter is True

        def test_back_again():
            assert (settings.use_aiter, settings.kv_format) == (True, "fp8")
            assert live(Mine).use_aiter is False
            assert settings.explain("use_aiter").source == "file"
        """,
    )
    result.assert_outcomes(passed=2)
    settings.load()


def test_processes_side_by_side_do_not_disturb_each_other(pytester):
    """As with pytest-xdist, each process watches its own environment and its own settings."""
    pytester.makepyfile(
        """
        import os, time
        import pytest
        from dsa_config import settings

        @pytest.mark.parametrize("number", range(20))
        def test_mine(number, monkeypatch, settings_set):
            mine = os.getpid() % 1000
            monkeypatch.setenv("SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES", str(mine))
            time.sleep(0.005)
            assert settings.mqa_logits_max_chunk_bytes == mine
            settings_set(mqa_logits_max_chunk_bytes=number)
            assert settings.mqa_logits_max_chunk_bytes == number
        """
    )
    command = [sys.executable, "-m", "pytest", *plugin(), "-q", "-p", "no:cacheprovider", str(pytester.path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        told, _ = process.communicate(timeout=120)
        assert process.returncode == 0, told
        assert "20 passed" in told


def test_the_plugin_starts_without_torch():
    """A project that merely has the package installed pays for no tensor library, nor for the marker's code."""
    program = "import dsa_config.testing, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "dsa_config.testing.leaks" in loaded
    assert loaded.isdisjoint({"torch", "triton", "numpy", "openfeature", "watchfiles", "dsa_config.testing.matrix"})


def test_what_a_test_allocates_and_captures_ends_with_it(pytester):
    """A moment that passed in one test makes no change of the next one too late, nor the giving back of its own."""
    result = run(
        pytester,
        """
        import warnings
        from dsa_config import TooLate
        pytestmark = pytest.mark.filterwarnings("error::dsa_config.TooLate")

        class Early(LiveSettings):
            wide: bool = setting(False, effect="allocate")

        live(Early)

        def test_allocates(settings_set):
            settings_set(kv_format="model")
            settings.passed("allocate", "a cache was allocated")
            live(Early).passed("allocate", "another was allocated")
            with pytest.warns(TooLate):
                settings_set(kv_format="fp8")

        def test_later(settings_set, settings_load, tmp_path):
            settings_set(kv_format="model")
            settings_set(live(Early), wide=True)
            (tmp_path / "x.toml").write_text("index_k_format = 'model'")
            settings_load(file=tmp_path / "x.toml")
            settings.passed("allocate", "a cache was allocated")

        def test_of_a_class_of_its_own():
            class Late(LiveSettings):
                wide: bool = setting(False, effect="allocate")

            late = live(Late)
            late.passed("allocate", "a cache was allocated")
            type(settings).late = late

        def test_after_that():
            type(settings).late.set(wide=True)
            type(settings).late.reset()
            del type(settings).late

        def test_leaks():
            settings.passed("allocate", "a cache was allocated")
            with pytest.warns(TooLate):
                settings.set(kv_format="model")

        def test_after_the_leak():
            assert settings.kv_format == "fp8"
        """,
        "--dsa-leaks=warn",
        "-W",
        "default::dsa_config.testing.SettingsLeak",
    )
    result.assert_outcomes(passed=6, warnings=1)
