"""The command `dsa run`."""

from __future__ import annotations

from typing import Annotated

import typer

from dsa_exec.cli.device_option import AUTO, Device
from dsa_exec.cli.model_option import Dtype, DtypeOption, Model
from dsa_exec.cli.run.asked import RANK_TIMEOUT_S, Asked
from dsa_exec.cli.run.numbers import number, whole_number

# Numbers are texts here, so that what is no number is told in one sentence, by `numbers.py`.
_Text = str | None

RANKS = "Several processes"
SAMPLING = "Drawing tokens"
SEVERAL = "Several prompts"
MOST_SEED = 2**63 - 1


def run(
    prompt: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Text to continue, or - for standard input.", show_default="a text of ours"),
    ] = None,
    max_new_tokens: Annotated[str, typer.Option(metavar="N", help="How many tokens to add at most.")] = "64",
    model: Model = None,
    device: Device = AUTO,
    device_map: Annotated[
        str | None,
        typer.Option(
            metavar="auto", help="Spread the model over all GPUs. Needs accelerate.", show_default="one device"
        ),
    ] = None,
    dtype: DtypeOption = Dtype.AUTO,
    nproc: Annotated[
        _Text,
        typer.Option(
            metavar="N",
            help="Start N processes and split the model over them, each on a GPU of its own if there are any. Needs "
            "accelerate. (With torchrun, leave it out.)",
            show_default="1",
            rich_help_panel=RANKS,
        ),
    ] = None,
    rank_timeout: Annotated[
        _Text,
        typer.Option(
            metavar="SECONDS",
            help="How long these processes wait for one that hangs, until all end with an error.",
            show_default=f"{RANK_TIMEOUT_S:g}",
            rich_help_panel=RANKS,
        ),
    ] = None,
    temperature: Annotated[
        str,
        typer.Option(
            metavar="NUMBER",
            help="Draw tokens, with logits divided by this. 0: take the likeliest.",
            rich_help_panel=SAMPLING,
        ),
    ] = "0",
    sample_top_k: Annotated[
        _Text,
        typer.Option(
            metavar="N",
            help="Draw among the N likeliest tokens. (How many positions the indexer selects is the model's.)",
            show_default="all",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    top_p: Annotated[
        _Text,
        typer.Option(
            metavar="SHARE",
            help="Draw among the fewest likeliest tokens that have this probability together.",
            show_default="all",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        _Text,
        typer.Option(
            metavar="N",
            help="Of the draws: the same seed gives the same text.",
            show_default="0",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.jsonl",
            help='Continue many texts, or - for standard input: a line each, {"prompt": "..."}, also with "id" and '
            '"max_new_tokens". Results are JSON lines, in the same order.',
            show_default="one prompt",
            rich_help_panel=SEVERAL,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Where the results of --prompts go, or - for standard output.",
            show_default="standard output; the report then goes to standard error",
            rich_help_panel=SEVERAL,
        ),
    ] = None,
    batch_size: Annotated[
        _Text,
        typer.Option(
            metavar="N",
            help="Run N lines of --prompts at once, shorter ones padded.",
            show_default="1",
            rich_help_panel=SEVERAL,
        ),
    ] = None,
    compare: Annotated[
        bool | None,
        typer.Option(
            "--compare/--no-compare",
            help="Run plain transformers on the same prompt too, and report how far both agree.",
            show_default="compare; with --prompts and --no-report, not",
        ),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Tell how the text came about.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, for programs.")] = False,
) -> None:
    """Continue a text with a DSA model, on our indexer and attention; then report how.

    The text is printed as its tokens come. Ctrl-C leaves what there is, with a report of it.

    Exits with 0 if all was done, 2 if what was given is wrong, 1 if the output cannot be written or one of several
    processes was lost, 130 if interrupted.
    """
    asked = Asked(
        prompt=prompt,
        prompts=prompts,
        output=output,
        batch_size=None if batch_size is None else whole_number("--batch-size", batch_size, least=1),
        max_new_tokens=whole_number("--max-new-tokens", max_new_tokens, least=1),
        model=model,
        device=device,
        device_map=device_map,
        dtype=dtype,
        temperature=number("--temperature", temperature),
        sample_top_k=None if sample_top_k is None else whole_number("--sample-top-k", sample_top_k, least=1),
        top_p=None if top_p is None else number("--top-p", top_p),
        seed=None if seed is None else whole_number("--seed", seed, least=0, most=MOST_SEED),
        compare=compare,
        report=report,
        as_json=as_json,
        nproc=None if nproc is None else whole_number("--nproc", nproc, least=1),
        rank_timeout_s=None if rank_timeout is None else number("--rank-timeout", rank_timeout),
    )
    if asked.nproc is not None and asked.nproc > 1:
        from dsa_exec.cli.run.on_ranks import run_on_ranks

        raise typer.Exit(run_on_ranks(asked, asked.nproc))
    from dsa_exec.cli.run.running import run_as_asked

    if run_as_asked(asked):
        raise typer.Exit(130)
