"""The marker settings_matrix: one test for each combination of settings."""

from __future__ import annotations

import pytest
from plugin_runs import output, run

pytest_plugins = ["pytester"]


def ids_of(result: pytest.RunResult) -> list[str]:
    """The ids in brackets of the tests that passed, in order."""
    return [line.split("[")[1].split("]")[0] for line in result.outlines if "PASSED" in line]


def test_runs_every_combination(pytester):
    """A bare name stands for all values; the ids can be read; fixtures see the combination too."""
    result = run(
        pytester,
        """
        @pytest.fixture
        def seen():
            return settings.fuse_topk, settings.kv_format

        @pytest.mark.settings_matrix("fuse_topk", kv_format=["fp8", "model"])
        def test_it(seen):
            assert seen == (settings.fuse_topk, settings.kv_format)
            print(seen)

        def test_after():
            assert (settings.fuse_topk, settings.kv_format) == (True, "fp8")
        """,
        "-vs",
    )
    result.assert_outcomes(passed=5)
    ids = "fuse_topk=on-kv_format=fp8 fuse_topk=on-kv_format=model fuse_topk=off-kv_format=fp8"
    told = "\n".join(result.outlines)
    assert all(f"test_it[{id}]" in told for id in [*ids.split(), "fuse_topk=off-kv_format=model"])
    assert all(f"({fused}, '{kind}')" in told for fused in (True, False) for kind in ("fp8", "model"))


def test_bare_names_of_every_kind(pytester):
    """Booleans, literals, enums, choices that are looked up, and each of them or none."""
    result = run(
        pytester,
        """
        from typing import Annotated
        from pydantic import SecretStr
        from dsa_config.grammar import ChoicesOf

        class Colour(enum.Enum):
            RED = "red"
            BLUE = "blue"

        class Odd:
            def __repr__(self):
                return "odd"

        class Mine(LiveSettings):
            colour: Colour = setting(Colour.RED)
            level: Literal[1, "two"] = setting(1)
            maybe: bool | None = setting(None)
            chosen: Annotated[str, ChoicesOf(lambda: ("a", "b"))] = setting("a")
            token: SecretStr = setting(SecretStr(""))
            sizes: tuple[int, ...] = setting(())
            anything: object = setting(None)

        mine = live(Mine)

        @pytest.mark.settings_matrix(mine, "colour")
        def test_colour():
            assert isinstance(mine.colour, Colour)

        @pytest.mark.settings_matrix(mine, "level", "maybe")
        def test_level():
            assert mine.level in (1, "two")

        @pytest.mark.settings_matrix(mine, "chosen", token=["hunter2"], sizes=[(1, 2), ()], anything=[Odd()])
        def test_chosen():
            assert mine.token.get_secret_value() == "hunter2"
        """,
        "-v",
    )
    result.assert_outcomes(passed=2 + 6 + 4)
    assert ids_of(result)[:2] == ["colour=red", "colour=blue"]
    assert ids_of(result)[2:8] == [f"level={it}-maybe={maybe}" for it in (1, "two") for maybe in ("on", "off", "none")]
    assert "test_chosen[chosen=a-token=**********-sizes=[1, 2]-anything=odd]" in "\n".join(result.outlines)


def test_markers_multiply(pytester):
    """With one another, over live objects, with a class's marker and with parametrize."""
    result = run(
        pytester,
        """
        class Mine(LiveSettings):
            depth: int = setting(1)

        @pytest.mark.settings_matrix("use_aiter")
        class TestIt:
            @pytest.mark.parametrize("number", [1, 2])
            @pytest.mark.settings_matrix("fuse_topk")
            @pytest.mark.settings_matrix(live(Mine), depth=[2, 3])
            def test_it(self, number):
                assert live(Mine).depth in (2, 3)
        """,
        "-v",
    )
    result.assert_outcomes(passed=16)
    assert any({"depth=2", "fuse_topk=off", "use_aiter=on", "1"} <= set(it.split("-")) for it in ids_of(result))


ERRORS = {
    '"fuse_tpok"': "'fuse_tpok' is not a setting of DSASettings; did you mean fuse_topk?",
    "3": "'3' is not a setting of DSASettings",
    '"mqa_logits_max_chunk_bytes"': "mqa_logits_max_chunk_bytes in settings_matrix takes an integer "
    "in decimal digits, 0 <= x, which cannot all be tried: write mqa_logits_max_chunk_bytes=[...] with values",
    '"mem_fraction_static"': "mem_fraction_static in settings_matrix takes a finite number",
    'kv_format="fp8"': "kv_format='fp8' in settings_matrix: wanted a list of one value or more",
    "kv_format=[]": "kv_format=[] in settings_matrix: wanted a list of one value or more",
    "kv_format={'fp8'}": "kv_format={'fp8'} in settings_matrix: wanted a list of one value or more",
    'kv_format=["fp9"]': "kv_format='fp9' (from the marker settings_matrix): is not a choice; kv_format takes",
    "fuse_topk=[True, 'on']": "fuse_topk=[True, 'on'] in settings_matrix: 'on' says again what was there before",
    '"fuse_topk", fuse_topk=[True]': "fuse_topk is more than once in settings_matrix markers of one test",
    "": "settings_matrix names no setting; write @pytest.mark.settings_matrix(",
}


@pytest.mark.parametrize("arguments", ERRORS)
def test_mistakes_are_collection_errors(pytester, arguments):
    """One sentence without a traceback, which names the test; nothing runs."""
    result = run(pytester, f"@pytest.mark.settings_matrix({arguments})\ndef test_it():\n    pass\n")
    result.assert_outcomes(errors=1)
    assert f"::test_it: {ERRORS[arguments]}" in output(result)
    assert "Traceback" not in output(result)
    assert "During handling" not in output(result)


@pytest.mark.parametrize("place", ["module", "class", "method"])
def test_test_cases_are_refused(pytester, place):
    """pytest cannot multiply the methods of a unittest.TestCase, so the marker would be without effect."""
    marker = '@pytest.mark.settings_matrix("fuse_topk")'
    result = run(
        pytester,
        f"""
        {'pytestmark = pytest.mark.settings_matrix("fuse_topk")' if place == "module" else ""}
        {marker if place == "class" else ""}
        class TestIt(unittest.TestCase):
            {marker if place == "method" else ""}
            def test_it(self):
                pass
        """,
    )
    result.assert_outcomes(errors=1)
    assert "TestIt: settings_matrix cannot multiply the methods of a unittest.TestCase; use a plain class" in output(
        result
    )


def test_other_test_cases_are_collected(pytester):
    """A unittest.TestCase without the marker is none of our business."""
    run(pytester, "class TestIt(unittest.TestCase):\n    def test_it(self):\n        pass\n").assert_outcomes(passed=1)


def test_the_marker_is_listed(pytester):
    """`pytest --markers` explains it."""
    assert '@pytest.mark.settings_matrix("fuse_topk", kv_format=["fp8", "model"]): ' in output(
        run(pytester, "", "--markers")
    )
