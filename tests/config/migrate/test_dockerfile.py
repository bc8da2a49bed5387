"""Dockerfiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from migrations import NEW, OLD, canonical, expect_by_hand, expect_renamed, expect_safe, migrated, texts_of

from dsa_config.tools.migrate.errors import Unparsable

PLACES = [
    "ENV @=0",
    "ENV A=1 \\\n    # why\n    @=0 \\\n    B=2",
    "ENV @ 0",
    "ENV @ $OTHER",
    "ENV @",
    "ARG @\nARG @=1\nARG A B=2 @=3",
    "RUN export A=1 && \\\n    @=0 serve",
    "RUN --mount=type=cache,target=$@ @=0 serve",
    "RUN <<EOF\nexport @=0\nEOF",
    "RUN python3 - <<'A'\nos.environ[\"@\"]\nA\nADD <<B <<-C /x\n@=1\nB\n\t@=1\n\tC\nENV @=1",
    "COPY <<EOF /app/.env\n@=1\n# a comment\nEOF",
    'CMD ["env", "@=0", "serve"]\nENTRYPOINT @=0 serve',
    "HEALTHCHECK --interval=5s CMD curl $@",
    "HEALTHCHECK NONE\nEXPOSE $@\nLABEL x=${@:-1}",
    "ONBUILD ENV @=1\nonbuild run @=1 x",
    "# syntax=docker/dockerfile:1\n# escape=`\nENV A=1 `\n  @=1",
    "ENV A=1 \\  \n  @=1\r\nUSER x",
]


@pytest.mark.parametrize("text", PLACES)
def test_names_are_renamed_in_place(text):
    """Instructions over several lines, old-style ENV, commands, here-documents, lists, options, another escape."""
    text = f"FROM base\n{text}" if "escape" not in text else text
    expect_renamed("dockerfile", text.replace("@", OLD), text.replace("@", NEW))


def test_comments_are_left():
    """Between instructions and within them."""
    text = f"# {OLD}\nFROM x\nENV A=1 \\\n  # {OLD}=1\n  B=2\n"
    assert (migrated("dockerfile", text).text, migrated("dockerfile", text).by_hand) == (text, [])


def test_values_change_with_their_names():
    """In both styles of ENV and in commands."""
    expect_renamed(
        "dockerfile",
        "FROM x\nENV WAIT_MS=1500\nENV DISABLE_IT 1 \nRUN WAIT_MS=2000 x\n",
        "FROM x\nENV WAIT_S=1.5\nENV ENABLE_IT 0 \nRUN WAIT_S=2 x\n",
    )


def test_names_are_looked_at_by_stage():
    """Both names in one stage are a conflict, in two stages they are not."""
    expect_by_hand("dockerfile", f"FROM x\nENV {OLD} 1\nENV {NEW}=0\n", "a conflict")
    expect_renamed(
        "dockerfile", f"FROM x\nENV {OLD}=1\nFROM y\nENV {NEW}=0\n", f"FROM x\nENV {NEW}=1\nFROM y\nENV {NEW}=0\n"
    )
    expect_by_hand("dockerfile", "FROM x\nENV WAIT_MS $OTHER\n", "no literal")
    for instruction in ("RUN", "ENV A=1"):
        split = f"FROM x\nLABEL x={OLD}_EXTRA\n{instruction} SGLANG_NSA_\\\nFUSE_TOPK=1 x\n"
        expect_by_hand("dockerfile", split, "line ends stand within it")
    expect_by_hand("dockerfile", f"FROM x\nMAINTAINER of {OLD}\n", "does not understand")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FROM x\nWHAT @=1", "line 2: .* is no instruction"),
        ("FROM x\n@=1", "line 2: .* is no instruction"),
        ("FROM x\n\nRUN if then $@ (", "line 3: it is no shell script"),
        ("FROM x\nRUN cat <<EOF\n@=1", "line 2: the here-document does not end with EOF"),
    ],
)
def test_a_broken_file_is_refused(text, sentence):
    """With the line of the instruction."""
    with pytest.raises(Unparsable, match=sentence):
        migrated("dockerfile", text.replace("@", OLD))


@given(
    texts_of("=", "'", '"', "#", "ENV ", "RUN ", "ARG ", "CMD [", "]", "$", "\\\n", "\nE\n", "<<E", "FROM x\n", "\\")
)
def test_hostile_text(text):
    """Only names change."""
    expect_safe("dockerfile", f"FROM x\n{text}", canonical)
