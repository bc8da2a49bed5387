"""From what was asked for to the report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import dsa_config
from dsa_config import settings
from dsa_exec.cli.plan.asked import Asked, Texts, asked_by, option_of
from dsa_exec.cli.plan.checkpoint import config_file, read_object
from dsa_exec.cli.plan.fits import fit, shown_contexts
from dsa_exec.cli.plan.logits import budget_of, chunk_table
from dsa_exec.cli.plan.rank_groups import group_name, pools_of_model, rank_groups
from dsa_exec.cli.plan.rank_memory import DividedMemory, divided
from dsa_exec.cli.plan.report import Equation, EquationTerm, Input, Model, PlanReport
from dsa_exec.memory.geometry import ModelGeometry, geometry_of
from dsa_exec.memory.plan_pools import plan_pools
from dsa_exec.memory.pool_plan import Plan, RankPlan


def report_of(texts: Texts) -> PlanReport:
    """The plan of what the command line says.

    Raises:
        BadOption, CheckpointError, GeometryError, PlanError, NoPoolMemory: what was given is wrong, or does not fit.
        SettingError: a setting that counts cannot be read.
    """
    asked = asked_by(texts)
    file = config_file(texts.model)
    geometry = geometry_of(read_object(file), str(file))
    memory = divided(asked, file)
    plan = plan_pools(geometry, asked.world, memory.memory.pools_bytes, asked.options)
    budget = budget_of(memory.memory, float(memory.fraction))
    contexts = shown_contexts(asked.options.context_tokens or geometry.max_context_tokens)
    return PlanReport(
        version=dsa_config.__version__,
        model=_model(geometry, file),
        inputs=_inputs(asked, plan, memory),
        memory=memory.memory,
        tokens=plan.tokens,
        tokens_per_group=plan.request_tokens,
        tokens_in_all=plan.total_tokens,
        page_tokens=plan.page_tokens,
        bytes_per_token=plan.bytes_per_token,
        pools=pools_of_model(plan),
        ranks=rank_groups(plan),
        fits=[fit(plan, context) for context in contexts],
        logits_budget=budget,
        logits=chunk_table(geometry, budget, contexts, asked.prefill_rows),
        equations=[_equation(plan, stage) for stage in plan.stages],
        notes=[*memory.notes, *plan.notes, *_of_context(asked, geometry), *_of_settings(asked)],
    )


def _model(geometry: ModelGeometry, file: Path) -> Model:
    ratios = Counter(geometry.compress_ratios)
    return Model(
        file=str(file),
        model_type=geometry.model_type,
        layers=geometry.layers,
        draft_layers=geometry.draft_layers,
        kv_width=geometry.kv_width,
        index_heads=geometry.index_heads,
        index_head_dim=geometry.index_head_dim,
        index_topk=geometry.index_topk,
        index_layers=sum(geometry.own_indexers),
        max_context_tokens=geometry.max_context_tokens,
        compress_ratios={str(ratio): ratios[ratio] for ratio in sorted(ratios)},
        window_tokens=geometry.window_tokens,
    )


def _inputs(asked: Asked, plan: Plan, memory: DividedMemory) -> list[Input]:
    options, world = plan.options, plan.world

    def of(name: str, value: int | float | str | list[int] | None, otherwise: str = "the default") -> Input:
        return Input(name=name, value=value, origin=option_of(name) if name in asked.given else otherwise)

    model = str(plan.geometry.origin)
    drafts = sum(stage.draft_layers for stage in plan.stages)
    found = [
        of("gpu_mem", asked.gpu_bytes),
        Input(name="mem_fraction_static", value=float(memory.fraction), origin=memory.fraction_origin),
        Input(name="weights", value=memory.memory.weights_bytes, origin=memory.weights_origin),
        *(of(name, getattr(world, name)) for name in ("tp", "pp", "dp", "cp")),
        of("stage_layers", [stage.slice.local for stage in plan.stages], "as even as it goes"),
        of("kv_dtype", options.kv),
        of("index_k_dtype", options.index_k),
        of("page_size", plan.page_tokens, f"the default for {plan.geometry.model_type}"),
        of("context", options.context_tokens or plan.geometry.max_context_tokens, model),
        of("draft_tokens", options.draft_tokens),
        of("draft_layers", drafts, model if options.draft_tokens else "no --draft-tokens"),
        of("max_running_requests", options.max_running_requests, "not known"),
        of("max_tokens", options.max_tokens, "no limit"),
        of("prefill", list(asked.prefill_rows)),
    ]
    if plan.geometry.compressed:
        state = {4: "f32", 2: "bf16"}[options.c4_state_bytes]
        found += [
            of("swa_full_tokens_ratio", float(options.swa_ratio)),
            of("state_dtype", state),
            of("online_c128", int(options.online_c128)),
        ]
    return found


def _equation(plan: Plan, stage: RankPlan) -> Equation:
    terms = [
        EquationTerm(name=it.name, formula=it.formula, numbers=it.numbers, value=str(it.value), unit=it.unit)
        for it in stage.terms
    ]
    return Equation(ranks=group_name(plan, stage.place.pp), terms=terms)


def _of_context(asked: Asked, geometry: ModelGeometry) -> list[str]:
    context, most = asked.options.context_tokens or 0, geometry.max_context_tokens
    return [f"--context {context} is more than the {most} positions of the model."] if context > most else []


def _of_settings(asked: Asked) -> list[str]:
    """What caches of this project would hold by their settings, where that is not what is planned."""
    notes = []
    kv, index_k = settings.explain("kv_format"), settings.explain("index_k_format")
    if kv.value == "model" and asked.options.kv != "bf16":
        notes.append(
            f"kv_format=model ({kv.origin}) allocates MLA caches in the model's dtype: --kv-dtype bf16 plans them."
        )
    if index_k.value == "model":
        notes.append(f"index_k_format=model ({index_k.origin}) allocates larger index-K caches than are planned here.")
    return notes
