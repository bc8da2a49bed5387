"""Shell scripts."""

from __future__ import annotations

import os
import shlex

import pytest
from hypothesis import given
from migrations import NEW, OLD, canonical_leaves, expect_by_hand, expect_renamed, expect_safe, migrated, texts_of

from dsa_config.tools.migrate.errors import Unparsable

PLACES = [
    "export A=1 @=0",
    "@=0 serve",
    "env @=0 serve",
    "docker run -e @=0 -e@=1 -e @ --env=@ --build-arg @=2 image",
    'docker run -e "@=0" --env "@" image',
    "srun --export=ALL,@=1 serve",
    'echo "${@:-1}" $@ "$@" ${!@} $((@ + 1))',
    "unset @; readonly @; declare -x @; printenv @",
    "if [[ -v @ ]]; then :; fi",
    "f() { local @=1; }",
    "cat > .env <<EOF\n@=1\nexport A=2 @=$@\nEOF",
    "cat <<'EOF'\n${@}\nEOF",
    "cat <<-EOF\n\t@=1\n\tEOF",
    "bash -c 'export A=1 @=0; serve'",
    "python -c 'import os; os.environ[\"@\"]'",
    "serve \\\n@=1 \\\n  -e @=1\r\n",
    "@+=1",
    "x=([1]=$@)",
    "echo é; @=ü",
]


@pytest.mark.parametrize("script", PLACES)
def test_names_are_renamed_in_place(script):
    """Assignments, expansions, options that take a variable, built-ins, here-documents and nested scripts."""
    expect_renamed("shell", script.replace("@", OLD), script.replace("@", NEW))


def test_comments_are_left():
    """In the script and in its here-documents."""
    text = f"true # {OLD}=1\ncat <<EOF\n# {OLD}=1\nEOF\n"
    assert (migrated("shell", text).text, migrated("shell", text).by_hand) == (text, [])


def test_longer_names_are_other_names():
    """A name is a whole token."""
    text = f"export {OLD}_EXTRA=1 MY_{OLD}=2 x{OLD}=1 -{OLD}x\n"
    assert (migrated("shell", text).text, migrated("shell", text).by_hand) == (text, [])


def test_values_change_with_their_names():
    """Bare, in single and in double quotes, empty ones aside."""
    expect_renamed(
        "shell",
        "export WAIT_MS=1500 DISABLE_IT='1'; DISABLE_IT=\"0\" serve -e WAIT_MS=20",
        "export WAIT_S=1.5 ENABLE_IT='0'; ENABLE_IT=\"1\" serve -e WAIT_S=0.02",
    )


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("grep @ file", ["does not understand"]),
        ("@=1\nWAIT_MS=$(date)", ["WAIT_MS", "no literal"]),
        ("WAIT_MS+=1", ["no literal"]),
        ("WAIT_MS=1; echo $WAIT_MS", ["no literal"]),
        ("WAIT_MS=1; echo 'in WAIT_MS'", ["does not understand, and its value changes too"]),
        ("WAIT_MS=", ["cannot be converted"]),
        ("WAIT_MS=''", ["cannot be converted"]),
        ('WAIT_MS="a b"', ["no literal"]),
        ("GONE=1", ["removed without replacement"]),
        ("export SGLANG_DSA_FUSE_TOPK=1\necho $@", ["is set too, at line 1", "is read beside it"]),
        ("export SGLANG_DSA_FUSE_TOPK=1\nexport @=\n", ["a conflict"]),
        ("echo @\\\n_EXTRA", ["joined to its neighbour"]),
        ("export @\\\n_EXTRA=1", ["joined to its neighbour"]),
        ("echo MY_\\\n@", ["joined to its neighbour"]),
    ],
)
def test_what_a_tool_cannot_do_is_reported(script, parts):
    """The name stays, and a sentence says why."""
    done = migrated("shell", script.replace("@", OLD))
    assert any(all(part in f"{it.name}: {it.why}" for part in parts) for it in done.by_hand), done.by_hand
    for name in ("WAIT_S", "_DSA_FUSE_TOPK_EXTRA"):
        assert name not in done.text


def test_a_name_is_renamed_everywhere_or_nowhere():
    """A conflict at one place keeps the name at the others of the file."""
    expect_by_hand("shell", f"{NEW}=1\n{OLD}=0\necho ${OLD}", "is read beside it")


def test_a_broken_script_is_refused():
    """With the line from which on it makes no sense."""
    with pytest.raises(Unparsable, match="^line [12]: it is no shell script"):
        migrated("shell", f"export {OLD}=1\nif then (\n")


@pytest.mark.parametrize(
    "text", [f"echo 'OLDER_FUSE_TOPK'{OLD}\n", f"echo A'{OLD}'\n", f'echo "{OLD}""_OF" x\n', f"x='{OLD}'B\n"]
)
def test_a_name_that_is_joined_with_another_word_is_left(text):
    """The shell makes one word of parts side by side, and the name is none in it."""
    done = migrated("shell", text)
    assert (done.text, done.changes) == (text, [])


@pytest.mark.parametrize("text", [f"echo --'{OLD}'=1\n", f"echo '{OLD}'=\"$x\"\n", f"x='{OLD}'\n"])
def test_a_name_beside_other_signs_is_renamed(text):
    """A word of several parts in which the name stands whole."""
    assert migrated("shell", text).text == text.replace(OLD, NEW)


def words(text: str) -> object:
    try:
        return canonical_leaves(shlex.split(text))
    except ValueError:
        return None


@given(
    texts_of("=", "'", '"', "#", "export ", "$", "${", "}", ":-", "1", "\\", "\\\n", "<<E\n", "\nE\n", ";", "(", ")")
)
def test_hostile_text(text):
    """Words stay the same words."""
    expect_safe("shell", text, words)


def test_a_text_that_crashes_the_grammar_is_refused(monkeypatch):
    """The crash is a child's, and the file is left as it is."""
    from dsa_config.tools.migrate import probe
    from dsa_config.tools.migrate.errors import Unparsable
    from dsa_config.tools.migrate.formats import shell
    from dsa_config.tools.migrate.names import Names

    assert probe.survives(lambda: None)
    assert not probe.survives(os.abort)
    assert not probe.survives(lambda: 1 / 0)
    monkeypatch.setattr(shell, "survives", lambda parse: False)
    with pytest.raises(Unparsable, match="the grammar of bash crashes on it"):
        shell.read("export SGLANG_NSA_FUSE_TOPK=1", Names([]))
    monkeypatch.delattr(os, "fork")
    assert probe.survives(lambda: None)
