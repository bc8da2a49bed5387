"""The command `dsa bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from dsa_exec.cli.device_option import AUTO, Device
from dsa_exec.cli.model_option import Dtype, DtypeOption, Model

INTERRUPTED = 130


def bench(
    prefill: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Time prompts of so many tokens: 512,2K. Given alone, only these.",
            show_default="512,2048",
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Time new tokens after so many. Given alone, only these.",
            show_default="1024,4096",
        ),
    ] = None,
    decode_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Timed new tokens of each request and repetition, up to 4096.", show_default="16"
        ),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N", help="Requests at a time, up to 4096.")] = "1",
    repetitions: Annotated[str, typer.Option(metavar="N", help="How often each is timed, up to 1000.")] = "5",
    a: Annotated[
        list[str] | None,
        typer.Option(
            "--a",
            metavar="NAME=VALUE",
            help="Measure with this setting, under any name of it. May be given several times.",
            show_default="the settings as they are",
        ),
    ] = None,
    b: Annotated[
        list[str] | None,
        typer.Option(
            "--b",
            metavar="NAME=VALUE",
            help="Measure with this setting too, in turn with a, and tell the ratio b/a.",
            show_default="nothing to compare with",
        ),
    ] = None,
    model: Model = None,
    device: Device = AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw it: png, svg or pdf. Needs matplotlib.")
    ] = None,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write the report as JSON, for programs; - for standard output."),
    ] = None,
) -> None:
    """Time a DSA model on our indexer, attention and caches: prompts, and new tokens after them.

    Nothing is timed that is not right. Each piece of work is done once under each side's settings, and its logits and
    selected positions are compared: with plain transformers if caches hold the model's own dtype (index_k_format=model
    and kv_format=model), else with our ops on torch over caches of the same formats.

    Exits with 0 if all was timed, 1 if a result is wrong or the output cannot be written, 2 if what was given is
    wrong, 130 if interrupted; then what was whole is told.
    """
    from dsa_exec.cli.bench.running import run_as_asked

    report = run_as_asked(
        prefill=prefill,
        context=context,
        decode_tokens=decode_tokens,
        batch=batch,
        repetitions=repetitions,
        a=a or [],
        b=b,
        model=model,
        device=device,
        dtype=dtype,
        plot=plot,
        json=json,
    )
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if report.wrong:
        raise typer.Exit(1)
