"""The leak detector: the guilty test fails, with what it left behind; the next one starts clean."""

from __future__ import annotations

import pytest
from plugin_runs import output, run

from dsa_config import settings

pytest_plugins = ["pytester"]


LEAKS = {
    "override": ("settings.override(fuse_topk=False).__enter__()", "was fuse_topk=True and is fuse_topk=False"),
    "set": ("settings.set(fuse_topk=False)", "settings.set(fuse_topk=...) of DSASettings was not set and is False"),
    "environment": ("os.environ['SGLANG_DSA_FUSE_TOPK'] = '0'", "SGLANG_DSA_FUSE_TOPK was not set and is '0'"),
    "deprecated name": ("os.environ['SGLANG_NSA_FUSE_TOPK'] = '0'", "SGLANG_NSA_FUSE_TOPK was not set and is '0'"),
    "control": ("os.environ['SGLANG_DSA_PROFILE'] = 'x'", "SGLANG_DSA_PROFILE was not set and is 'x'"),
    "recording": ("settings.record_reads().__enter__()", "recording of reads was not entered and is still entered"),
    "loaded": (
        "settings.load(file='dsa.toml')",
        "what is loaded of DSASettings was load() and is load(file='dsa.toml')",
    ),
    "policy": ("settings.load(fatal_conflicts=True)", "was load() and is load(fatal_conflicts=True)"),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_the_guilty_test_alone_fails(pytester, kind):
    """What a test leaves behind is an error of its teardown that says what it was, is, and how to avoid it."""
    statement, words = LEAKS[kind]
    pytester.makefile(".toml", dsa="fuse_topk = false")
    result = run(
        pytester,
        f"""
        settings.fuse_topk  # loads, so that there is a state before

        def test_before():
            assert settings.fuse_topk is True

        def test_guilty():
            {statement}

        def test_after():
            assert settings.fuse_topk is True
            assert settings.explain("fuse_topk").source == "default"
        """,
    )
    result.assert_outcomes(passed=3, errors=1)
    assert "ERROR at teardown of test_guilty" in output(result)
    assert "::test_guilty has left settings changed behind" in output(result)
    assert words in output(result)
    assert ": use " in output(result) or ": enter it by `with`" in output(result)


def test_the_place_of_the_guilty_call_is_told(pytester):
    """Overrides and process values are told with the line that made them."""
    result = run(
        pytester,
        """
        def test_guilty():
            settings.override(fuse_topk=False).__enter__()
            settings.set(use_aiter=True)
        """,
    )
    assert "override scope (from settings.override at " in output(result)
    assert "test_the_place_of_the_guilty_call_is_told.py:7)" in output(result)
    assert "is True (from settings.set at " in output(result)
    assert "test_the_place_of_the_guilty_call_is_told.py:8)" in output(result)


def test_what_was_set_before_is_put_back(pytester, monkeypatch):
    """A test that changes or removes what was there before leaks too, and what was there is there again."""
    monkeypatch.setenv("SGLANG_DSA_USE_AITER", "unwatched")
    monkeypatch.setenv("SGLANG_USE_AITER", "1")
    settings.set(mqa_logits_max_chunk_bytes=5)
    result = run(
        pytester,
        """
        @pytest.mark.parametrize("again", [1, 2])
        def test_guilty(again):
            assert settings.use_aiter is True
            assert settings.mqa_logits_max_chunk_bytes == 5
            del os.environ["SGLANG_USE_AITER"]
            os.environ["SGLANG_DSA_USE_AITER"] = "not a name of ours"
            settings.set(mqa_logits_max_chunk_bytes=6)
        """,
    )
    result.assert_outcomes(passed=2, errors=2)
    assert "SGLANG_USE_AITER was '1' and is not set" in output(result)
    assert "was 5 (from settings.set at " in output(result)
    assert "SGLANG_DSA_USE_AITER" not in output(result).split("short test summary")[0].replace("os.environ", "")
    assert settings.use_aiter is True


def test_a_test_that_cleans_up_is_left_alone(pytester):
    """Values that fixtures take back, in whatever order they are torn down, are no leak."""
    pytester.makefile(".toml", dsa="use_aiter = true")
    result = run(
        pytester,
        """
        @pytest.fixture(autouse=True)
        def mine():
            os.environ["SGLANG_DSA_KV_FORMAT"] = "model"
            with settings.override(fuse_topk=False), settings.record_reads():
                yield
            del os.environ["SGLANG_DSA_KV_FORMAT"]

        class TestMethods:
            def setup_method(self):
                settings.set(index_k_format="model")

            def teardown_method(self):
                settings.reset()

            def test_clean(self, monkeypatch, settings_override, settings_set, settings_load):
                monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
                settings_override(use_aiter=True)
                settings_set(use_aiter=False)
                settings_load(file="dsa.toml")
                settings.reload()
                os.environ["UNRELATED_TO_SETTINGS"] = "kept"
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_reload_that_changes_nothing_is_no_leak(pytester):
    """What is loaded is compared by what it says."""
    result = run(
        pytester,
        """
        settings.load()

        def test_reloads():
            settings.reload()
        """,
    )
    result.assert_outcomes(passed=1)


def test_fixtures_of_a_wider_scope_may_set_things(pytester):
    """They are set up by the first test that needs them, and torn down by the last, and neither is blamed."""
    result = run(
        pytester,
        """
        @pytest.fixture(scope="session", autouse=True)
        def for_all():
            os.environ["SGLANG_USE_AITER"] = "1"
            yield
            del os.environ["SGLANG_USE_AITER"]

        @pytest.fixture(scope="module")
        def inner():
            with settings.override(kv_format="model"):
                yield

        @pytest.fixture(scope="module")
        def for_module(request):
            request.getfixturevalue("inner")
            settings.set(fuse_topk=False)
            with settings.override(index_k_format="model"):
                yield
            settings.reset()

        @pytest.fixture(scope="class", params=[3, 4])
        def for_class(request):
            settings.set(mqa_logits_max_chunk_bytes=request.param)
            yield request.param
            settings.reset("mqa_logits_max_chunk_bytes")

        class TestIt:
            def test_first(self, for_class):
                assert settings.mqa_logits_max_chunk_bytes == for_class

            def test_second(self, for_class, request):
                with settings.override(use_aiter=False):
                    request.getfixturevalue("for_module")
                assert settings.fuse_topk is False

            def test_third(self, for_class, for_module):
                assert (settings.kv_format, settings.index_k_format) == ("model", "model")
                assert settings.use_aiter is True

        class TestCase(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                settings.set(debug_check_indices=True)

            @classmethod
            def tearDownClass(cls):
                settings.reset("debug_check_indices")

            def test_one(self):
                assert settings.debug_check_indices is True

            def test_two(self):
                assert settings.debug_check_indices is True

        def test_last():
            assert settings.debug_check_indices is False
        """,
    )
    result.assert_outcomes(passed=9)
    assert settings.use_aiter is False
    assert settings.explain("fuse_topk").source == "default"


def test_a_fixture_of_a_wider_scope_hides_no_leak_of_the_test(pytester):
    """What the test itself has left behind by then stays its leak, and what the fixture gave is not taken away."""
    result = run(
        pytester,
        """
        @pytest.fixture(scope="module")
        def late():
            settings.set(use_aiter=True)
            yield
            settings.reset("use_aiter")

        def test_guilty(request):
            os.environ["SGLANG_DSA_KV_FORMAT"] = "model"
            settings.load(fatal_conflicts=True)
            settings.override(fuse_topk=False).__enter__()
            request.getfixturevalue("late")

        def test_after(late):
            assert (settings.use_aiter, settings.kv_format, settings.fuse_topk) == (True, "fp8", True)
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    assert "settings.set" not in output(result).split("short test summary")[0].split("changed behind")[1]


def test_a_scope_that_is_closed_too_early_is_told(pytester):
    """A test that closes the scope of a wider fixture is guilty, and the scope is open again."""
    result = run(
        pytester,
        """
        scope = settings.override(fuse_topk=False)

        @pytest.fixture(scope="module", autouse=True)
        def unfused():
            with scope:
                yield

        def test_guilty():
            scope.__exit__(None, None, None)

        def test_after():
            assert settings.fuse_topk is False
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    assert "was entered and is closed: leave it to the fixture that opened it" in output(result)


def test_every_live_class_is_watched(pytester):
    """Also one that the test itself declares; a secret's values are not shown."""
    result = run(
        pytester,
        """
        from pydantic import SecretStr
        from pydantic_settings import SettingsConfigDict

        def test_guilty():
            class Mine(LiveSettings):
                model_config = SettingsConfigDict(env_prefix="MINE_")
                depth: int = setting(1)
                token: SecretStr = setting(SecretStr(""))

            os.environ["MINE_DEPTH"] = "maybe"
            os.environ["MINE_TOKEN"] = "hunter2"
            live(Mine).set(token="hunter3")
            live(Mine).override(token="hunter4", depth=4).__enter__()
            live(Mine).load(emulate_version="2.0")

        def test_after():
            assert "MINE_DEPTH" not in os.environ
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    told = output(result)
    assert "MINE_DEPTH was not set and is 'maybe'" in told
    assert "MINE_TOKEN was not set and is **********" in told
    assert "what is loaded of Mine was nothing and is load(emulate_version='2.0')" in told
    assert "hunter" not in "".join(line for line in result.outlines if line.startswith("  "))


def test_an_unreadable_setting_can_be_told(pytester, monkeypatch):
    """Below a leaked override there may be a bad value."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    result = run(
        pytester,
        """
        def test_guilty():
            settings.override(fuse_topk=False).__enter__()
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    assert "was fuse_topk=not readable and is fuse_topk=False" in output(result)


def test_what_variables_name_may_be_loaded_by_the_first_read(pytester, monkeypatch):
    """A file that the environment names from the start is loaded by whichever test reads first; that is no leak."""
    path = pytester.makefile(".toml", dsa="fuse_topk = false")
    monkeypatch.setenv("LAZY_CONFIG", str(path))
    body = """
        from pydantic_settings import SettingsConfigDict

        class Lazy(LiveSettings):
            model_config = SettingsConfigDict(env_prefix="LAZY_")
            fuse_topk: bool = setting(True)

        lazy = live(Lazy)

        def test_first(monkeypatch):
            PREPARE
            assert lazy.fuse_topk is False

        def test_second():
            assert lazy.fuse_topk is LATER
    """
    run(pytester, body.replace("PREPARE", "pass").replace("LATER", "False"), inprocess=False).assert_outcomes(passed=2)
    monkeypatch.delenv("LAZY_CONFIG")
    prepare = f"monkeypatch.setenv('LAZY_CONFIG', {str(path)!r})"
    result = run(pytester, body.replace("PREPARE", prepare).replace("LATER", "True"), inprocess=False)
    result.assert_outcomes(passed=2, errors=1)
    assert f"what is loaded of Lazy was nothing and is load() of {path}" in output(result)


CONTEXTS = """
    from dataclasses import dataclass
    from dsa_config.overrides import FlagScope

    @dataclass(frozen=True)
    class Context:
        model: str = ""

    def test_empty():
        settings._state.set_process_context(Context())

    def test_not_set():
        settings._state._process_context = None

    def test_guilty_first():
        settings._state.set_process_context(Context("v2"))

    def test_guilty():
        settings._state.set_process_context(Context("v3"))
        FlagScope(Context("v4")).__enter__()

    def test_guilty_again():
        assert settings._state.process_context() == Context()
        settings._state.set_process_context(Context("v5"))
"""


def test_flag_contexts_are_watched(pytester, monkeypatch):
    """The process's and a scope's; an empty one is the same as none."""
    monkeypatch.setattr(settings._state, "_process_context", None)
    result = run(pytester, CONTEXTS)
    result.assert_outcomes(passed=5, errors=3)
    told = output(result)
    assert "flag context of DSASettings was not set and is Context(model='v2')" in told
    assert "flag context of DSASettings was Context(model='') and is Context(model='v3')" in told
    assert "flag context Context(model='v4') was not entered and is still entered" in told
    assert "flag context of DSASettings was Context(model='') and is Context(model='v5')" in told


GUILTY = "def test_guilty():\n    settings.set(fuse_topk=False)\n"


def test_it_can_warn_or_be_off(pytester):
    """By option or by ini; the option is stronger. A warning has the state put back all the same."""
    run(pytester, GUILTY, "--dsa-leaks=error").assert_outcomes(passed=1, errors=1)
    warned = run(pytester, GUILTY, "--dsa-leaks=warn", "-W", "default")
    warned.assert_outcomes(passed=1, warnings=1)
    assert "SettingsLeak: " in output(warned)
    assert settings.explain("fuse_topk").source == "default"
    pytester.makeini("[pytest]\ndsa_leaks = off\n")
    run(pytester, GUILTY).assert_outcomes(passed=1)
    assert settings.explain("fuse_topk").source == "set"
    settings.reset()
    run(pytester, GUILTY, "--dsa-leaks=error").assert_outcomes(passed=1, errors=1)


def test_an_unknown_mode_is_refused(pytester):
    """One sentence, and no test runs."""
    pytester.makeini("[pytest]\ndsa_leaks = loud\n")
    result = run(pytester, GUILTY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "dsa_leaks='loud' in " in output(result)
    assert "wanted one of error, warn, off" in output(result)


def test_a_failing_test_is_told_of_its_leak_too(pytester):
    """Setup, call or teardown may fail; what was left behind is put back after each."""
    result = run(
        pytester,
        """
        @pytest.fixture
        def broken():
            settings.set(fuse_topk=False)
            raise RuntimeError("setup")

        def test_broken(broken):
            pass

        def test_failing():
            settings.set(use_aiter=True)
            assert not settings.use_aiter

        def test_after():
            assert (settings.fuse_topk, settings.use_aiter) == (True, False)
        """,
    )
    result.assert_outcomes(passed=1, failed=1, errors=3)


def test_a_module_that_cannot_be_set_up_does_no_harm(pytester):
    """Where no test of its own began, there is nothing to compare."""
    result = run(
        pytester,
        """
        @pytest.fixture(scope="module", autouse=True)
        def broken():
            raise RuntimeError("setup")

        def test_one():
            pass
        """,
    )
    result.assert_outcomes(errors=1)
    pytester.makeconftest(
        "import pytest\nclass Bad(pytest.Module):\n    def setup(self):\n        raise OSError\n"
        "def pytest_pycollect_makemodule(module_path, parent):\n"
        "    return Bad.from_parent(parent, path=module_path)\n"
    )
    run(pytester, GUILTY).assert_outcomes(errors=1)
