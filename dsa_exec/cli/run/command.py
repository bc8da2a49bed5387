"""The command `dsa run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsa_exec.cli.device_option import AUTO, Device
from dsa_exec.cli.model_option import Dtype, DtypeOption, Model
from dsa_exec.cli.run.asked import Asked

SAMPLING = "Drawing tokens"
SEVERAL = "Several prompts"


def run(
    prompt: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Text to continue, or - for standard input.", show_default="a text of ours"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="How many tokens to add at most.")] = 64,
    model: Model = None,
    device: Device = AUTO,
    device_map: Annotated[
        str | None,
        typer.Option(
            metavar="auto", help="Spread the model over all GPUs. Needs accelerate.", show_default="one device"
        ),
    ] = None,
    dtype: DtypeOption = Dtype.AUTO,
    temperature: Annotated[
        float,
        typer.Option(
            metavar="NUMBER",
            help="Draw tokens, with logits divided by this. 0: take the likeliest.",
            rich_help_panel=SAMPLING,
        ),
    ] = 0.0,
    sample_top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Draw among the N likeliest tokens. (How many positions the indexer selects is the model's.)",
            show_default="all",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Draw among the fewest likeliest tokens that have this probability together.",
            show_default="all",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**63 - 1,
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
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the results of --prompts go.",
            show_default="standard output; the report then goes to standard error",
            rich_help_panel=SEVERAL,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
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

    Exits with 0 if all was done, 2 if what was given is wrong, 1 if the output cannot be written, 130 if interrupted.
    """
    asked = Asked(
        prompt=prompt,
        prompts=prompts,
        output=output,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        model=model,
        device=device,
        device_map=device_map,
        dtype=dtype,
        temperature=temperature,
        sample_top_k=sample_top_k,
        top_p=top_p,
        seed=seed,
        compare=compare,
        report=report,
        as_json=as_json,
    )
    from dsa_exec.cli.run.running import run_as_asked

    if run_as_asked(asked):
        raise typer.Exit(130)
