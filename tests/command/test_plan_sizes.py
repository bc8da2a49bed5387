"""How `dsa plan` reads sizes, counts and shares."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsa_exec.cli.plan.sizes import BadOption, count_of, count_words, counts_of, fraction_of, size_of


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("141GiB", 141 * 2**30),
        ("141gib", 141 * 2**30),
        (" 141 GiB ", 141 * 2**30),
        ("80GB", 80 * 10**9),
        ("1.5TB", 1_500_000_000_000),
        ("0.5KiB", 512),
        ("1.0001KB", 1000),
        ("12345", 12345),
        ("12345B", 12345),
        ("1024TiB", 2**50),
    ],
)
def test_sizes(text, bytes_):
    """Powers of 1024 with an i, powers of 1000 without, in any case; a part of a byte is dropped."""
    assert size_of("--x", text) == bytes_


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no size"),
        ("GiB", "is no size"),
        ("-1GiB", "is no size"),
        ("1e9", "is no size"),
        ("1,5GiB", "is no size"),
        ("\N{ARABIC-INDIC DIGIT ONE}GiB", "is no size"),
        ("1GiB2", "is no size"),
        ("1G", "'G' is no unit"),
        ("1Gb/s", "is no size"),
        ("1iB", "'iB' is no unit"),
        ("1.5", "has a part of a byte"),
        ("1.5B", "has a part of a byte"),
        ("0", "is less than 1 byte"),
        ("0.0001KiB", "is less than 1 byte"),
        ("1025TiB", "is more than any device has"),
        ("9" * 20 + "TiB", "is more than any device has"),
        ("9" * 21, "is no size"),
    ],
)
def test_texts_that_are_no_size(text, reason):
    """The error has the option, the text, what is wrong and what is allowed."""
    with pytest.raises(BadOption) as caught:
        size_of("--x", text)
    assert (caught.value.option, caught.value.text, caught.value.reason) == ("--x", text, reason)
    assert str(caught.value).startswith(f"--x {text!r}: {reason}; wanted a number of bytes, or a number with KiB, MiB")


def test_a_size_that_may_be_nothing():
    """Weights may be none."""
    assert size_of("--weights", "0", least=0) == 0


@given(st.integers(1, 2**50), st.sampled_from(["", "B", "KiB", "MiB", "GiB", "KB", "GB"]))
def test_whole_numbers_are_exact(number, unit):
    """No size is rounded through a float."""
    factor = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "GB": 10**9}[unit]
    if number * factor > 2**50:
        with pytest.raises(BadOption, match="is more than any device has"):
            size_of("--x", f"{number}{unit}")
    else:
        assert size_of("--x", f"{number}{unit}") == number * factor


def test_counts():
    """K and M mean powers of 1024; a list is in order, and has each number once."""
    assert count_of("--x", "8192") == count_of("--x", "8K") == count_of("--x", "8k") == 8192
    assert count_of("--x", "1M") == 2**20
    assert count_of("--x", "0", least=0) == 0
    assert counts_of("--x", "8K, 1,8192") == (1, 8192)
    for text in ("", "x", "1.5", "-1", "1G", "1 K"):
        with pytest.raises(BadOption, match="is no such number"):
            count_of("--x", text)
    for text in ("0", str(2**31), "2M"):
        with pytest.raises(BadOption, match="is out of range; wanted a whole number from 1 to "):
            count_of("--x", text, most=2**20)


@given(st.integers(1, 2**40))
def test_words_of_a_count_are_read_back(tokens):
    """What is shown for people means what it was made from."""
    assert count_of("--x", count_words(tokens), most=2**40) == tokens


def test_shares():
    """Decimal numbers above 0 and at most 1, exactly."""
    assert fraction_of("--x", "0.9") == fraction_of("--x", ".90") == Fraction(9, 10)
    assert fraction_of("--x", "1") == fraction_of("--x", "1.0") == 1
    for text in ("", "nan", "inf", "-0.5", "9/10", "90%", "1e-1"):
        with pytest.raises(BadOption, match="is no such number; wanted a number above 0 and at most 1, such as 0.9"):
            fraction_of("--x", text)
    for text in ("0", "0.0", "1.0001"):
        with pytest.raises(BadOption, match="is out of range"):
            fraction_of("--x", text)
