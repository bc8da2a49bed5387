"""The command `dsa plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsa_config.tools.printing import Json, console, print_json
from dsa_exec.cli.show_report import printable

if TYPE_CHECKING:
    from dsa_exec.cli.plan.asked import Texts
    from dsa_exec.cli.plan.sweep_asked import SweepTexts

V4 = "DeepSeek-V4"
"""The heading of options that other models have no use for."""

SWEEP = "With --sweep"
"""The heading of options that only a sweep has."""

# Numbers are texts here, so that what is no number is told in one sentence, by `asked.py`.
_Text = str | None


def plan(
    model: Annotated[Path, typer.Option(metavar="PATH", help="A config.json, or a folder that has one.")],
    gpu_mem: Annotated[str, typer.Option(metavar="SIZE", help="Memory of one device: 141GiB, 80GB, or bytes.")],
    tp: Annotated[
        _Text,
        typer.Option(metavar="N", help="Processes of a pipeline stage, which share its weights.", show_default="1"),
    ] = None,
    pp: Annotated[_Text, typer.Option(metavar="N", help="Pipeline stages.", show_default="1")] = None,
    dp: Annotated[
        _Text,
        typer.Option(
            metavar="N", help="Groups of a stage's processes, each with requests of its own.", show_default="1"
        ),
    ] = None,
    cp: Annotated[
        _Text, typer.Option(metavar="N", help="Parts that a request's context is split into.", show_default="1")
    ] = None,
    mem_fraction_static: Annotated[
        _Text,
        typer.Option(
            metavar="SHARE",
            help="Share of the memory for weights and pools.",
            show_default="the setting of this name, else 0.9",
        ),
    ] = None,
    weights: Annotated[
        _Text,
        typer.Option(
            metavar="SIZE",
            help="Weights of one rank.",
            show_default="an even share of model.safetensors.index.json beside the config.json, else 0",
        ),
    ] = None,
    kv_dtype: Annotated[
        _Text, typer.Option(metavar="fp8|bf16|fp8-raw", help="What a cached token is kept in.", show_default="fp8")
    ] = None,
    page_size: Annotated[
        _Text, typer.Option(metavar="N", help="Tokens a page.", show_default="64; 256 in DeepSeek-V4")
    ] = None,
    stage_layers: Annotated[
        _Text, typer.Option(metavar="N,N,...", help="Layers of each pipeline stage.", show_default="an even split")
    ] = None,
    draft_tokens: Annotated[
        _Text, typer.Option(metavar="N", help="Tokens that speculation drafts at once; 0: none.", show_default="0")
    ] = None,
    draft_layers: Annotated[
        _Text,
        typer.Option(metavar="N", help="Draft layers with caches.", show_default="with drafts the model's, else 0"),
    ] = None,
    max_running_requests: Annotated[
        _Text, typer.Option(metavar="N", help="Requests of the engine that run at once.", show_default="not known")
    ] = None,
    max_tokens: Annotated[
        _Text, typer.Option(metavar="N", help="The most tokens for each rank to hold.", show_default="what fits")
    ] = None,
    context: Annotated[
        _Text,
        typer.Option(metavar="N", help="The longest context in tokens: 131072 or 128K.", show_default="the model's"),
    ] = None,
    prefill: Annotated[
        _Text,
        typer.Option(metavar="N,N,...", help="Query rows of a prefill on one rank.", show_default="1K,4K,8K,16K,32K"),
    ] = None,
    swa_full_tokens_ratio: Annotated[
        _Text,
        typer.Option(
            metavar="SHARE",
            help="Tokens of the sliding-window pool for each token of context.",
            show_default="0.1",
            rich_help_panel=V4,
        ),
    ] = None,
    index_k_dtype: Annotated[
        _Text,
        typer.Option(metavar="fp8|fp4", help="What an index key is kept in.", show_default="fp8", rich_help_panel=V4),
    ] = None,
    state_dtype: Annotated[
        _Text,
        typer.Option(
            metavar="f32|bf16", help="What compressors' state is kept in.", show_default="f32", rich_help_panel=V4
        ),
    ] = None,
    online_c128: Annotated[
        bool,
        typer.Option("--online-c128", help="Ratio-128 layers keep one running state a request.", rich_help_panel=V4),
    ] = False,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep",
            help="Simulate throughput in place of a plan: the best split of each number of GPUs, for each context.",
            rich_help_panel=SWEEP,
        ),
    ] = False,
    gpus: Annotated[
        _Text,
        typer.Option(metavar="N,N,...", help="GPUs.", show_default="8,16,...,1024", rich_help_panel=SWEEP),
    ] = None,
    contexts: Annotated[
        _Text,
        typer.Option(
            metavar="N,N,...", help="Tokens of a request.", show_default="64K,128K,...,1M", rich_help_panel=SWEEP
        ),
    ] = None,
    node_gpus: Annotated[
        _Text, typer.Option(metavar="N", help="GPUs that NVLink connects.", show_default="8", rich_help_panel=SWEEP)
    ] = None,
    nvlink: Annotated[
        _Text,
        typer.Option(metavar="GB/s", help="Of a GPU, within a node.", show_default="329", rich_help_panel=SWEEP),
    ] = None,
    network: Annotated[
        _Text,
        typer.Option(metavar="GB/s", help="Of a GPU, between nodes.", show_default="50", rich_help_panel=SWEEP),
    ] = None,
    gemm_share: Annotated[
        _Text,
        typer.Option(
            metavar="SHARE",
            help="Share of the GPU's peaks that matrix products reach.",
            show_default="0.6",
            rich_help_panel=SWEEP,
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the equation with the numbers in it.")] = False,
    as_json: Json = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the memory of each rank, and logits over contexts; with --sweep the cost: png, svg or pdf.",
        ),
    ] = None,
) -> None:
    """Plan the memory of a deployment: how many tokens fit on each rank, and why.

    Reads the model's config.json, needs no GPU and no torch. Pools get gpu-mem x mem-fraction-static less the weights.
    With --sweep it simulates deployments of 8 to 1,024 GPUs from measured kernel times.

    Exits with 0 if there is a plan, 2 if what was given is wrong or nothing fits, 1 if the output cannot be written.
    With --sweep it exits with 0 where nothing fits too: the report says why.
    """
    from dsa_exec.cli.picture_file import require_drawable
    from dsa_exec.cli.plan.asked import Texts
    from dsa_exec.cli.plan.sweep_asked import SweepTexts, require_no_sweep

    if plot is not None:
        require_drawable(plot)
    texts = Texts(
        model=model,
        gpu_mem=gpu_mem,
        tp=tp,
        pp=pp,
        dp=dp,
        cp=cp,
        mem_fraction_static=mem_fraction_static,
        weights=weights,
        kv_dtype=kv_dtype,
        page_size=page_size,
        stage_layers=stage_layers,
        draft_tokens=draft_tokens,
        draft_layers=draft_layers,
        max_running_requests=max_running_requests,
        max_tokens=max_tokens,
        context=context,
        prefill=prefill,
        swa_full_tokens_ratio=swa_full_tokens_ratio,
        index_k_dtype=index_k_dtype,
        state_dtype=state_dtype,
        online_c128=online_c128,
    )
    own = SweepTexts(gpus, contexts, node_gpus, nvlink, network, gemm_share)
    if sweep:
        _sweep(texts, own, explain=explain, as_json=as_json, plot=plot)
    else:
        require_no_sweep(own)
        _plan(texts, explain=explain, as_json=as_json, plot=plot)


def _plan(texts: Texts, *, explain: bool, as_json: bool, plot: Path | None) -> None:
    from dsa_exec.cli.plan.picture import draw
    from dsa_exec.cli.plan.planning import report_of
    from dsa_exec.cli.plan.show import show

    report = report_of(texts)
    if plot is not None:
        draw(report, plot)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    show(report, explain=explain)
    _say_picture(plot)


def _sweep(texts: Texts, own: SweepTexts, *, explain: bool, as_json: bool, plot: Path | None) -> None:
    from dsa_exec.cli.plan.sweep_asked import sweep_asked_by
    from dsa_exec.cli.plan.sweep_picture import draw_sweep
    from dsa_exec.cli.plan.sweep_show import show_sweep
    from dsa_exec.cli.plan.sweeping import sweep_report_of

    report = sweep_report_of(sweep_asked_by(texts, own, explain=explain))
    if plot is not None:
        draw_sweep(report, plot)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    show_sweep(report)
    _say_picture(plot)


def _say_picture(plot: Path | None) -> None:
    if plot is not None:
        console().print(f"picture: {printable(str(plot))}", soft_wrap=True)
