"""`rayspec plan`: which layout of your GPUs serves your traffic best."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayspec.cli import traffic
from rayspec.cli.progress import Bar

if TYPE_CHECKING:
    from rayspec.planning.memory import Budget
    from rayspec.planning.plan import Ranked
    from rayspec.planning.scaling_law import DraftSize

_TIERS = (1, 2, 3, 4, 5, 6, 8)


def plan(
    target: Annotated[
        str, typer.Option(help="The model: its size as 8b or 70b, a folder, alias or hub id.")
    ] = "8b",
    draft: Annotated[
        list[str] | None,
        typer.Option(help="A candidate draft, given as the target; may be repeated."),
    ] = None,
    gpus: Annotated[int, typer.Option(help="How many GPUs there are.", min=1)] = 4,
    gpu: Annotated[str, typer.Option(help="b200, h200, h100, a100, l40s, l4 or rtx4090.")] = "h200",
    memory_gb: Annotated[
        float | None, typer.Option(help="Memory of one GPU, if other than the preset's.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Weights: auto (the model's own), bfloat16 or fp8.")
    ] = "auto",
    kv_dtype: Annotated[str, typer.Option(help="KV cache: auto, bfloat16 or fp8.")] = "auto",
    max_model_len: Annotated[int, typer.Option(help="Longest sequence to serve.", min=1)] = 8192,
    max_num_seqs: Annotated[int, typer.Option(help="Most sequences of an engine.", min=1)] = 128,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Measured engines instead of a roofline; --target, --draft and --gpu are then "
            "what was measured.",
            metavar="FILE",
        ),
    ] = None,
    acceptance_draft: Annotated[
        str, typer.Option(help="Size of the draft that the classes' acceptance is known of.")
    ] = "1b",
    trace: traffic.TraceFile = None,
    rate: traffic.Rate = None,
    users: traffic.Users = None,
    think: traffic.Think = 0.0,
    requests: traffic.Requests = 800,
    mix: traffic.Mix = "",
    class_: traffic.Class = None,
    arrival_cv: traffic.ArrivalCv = 1.0,
    length_cv: traffic.LengthCv = 0.5,
    prompt_tokens: traffic.PromptTokens = None,
    output_tokens: traffic.OutputTokens = None,
    acceptance: traffic.Acceptances = None,
    seed: traffic.Seed = 0,
    slo_ttft: traffic.SloTtft = None,
    slo_tpot: traffic.SloTpot = None,
    attainment: Annotated[
        float, typer.Option(help="Share of requests that has to keep the limits.", min=0, max=1)
    ] = 0.95,
    top: Annotated[int, typer.Option(help="How many layouts to show.", min=1)] = 10,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; times in seconds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Rank layouts of your GPUs under your traffic, draft GPUs counted.

    Simulates every layout that fits: tensor parallelism, how many
    speculative engines with each draft on a GPU of its own, how many
    plain engines, and no speculation at all. First come those that keep
    your limits, by the requests that a GPU then serves.

      rayspec plan --target 70b --dtype fp8 --gpus 4 --rate 2 --slo-tpot 15

      rayspec plan --target ./my-model --draft ./my-draft --draft 0.5b

      rayspec plan --calibration FILE --gpus 8 --users 64 --slo-tpot 8
    """
    from rayspec.planning.examples import DEFAULT, open_calibration
    from rayspec.planning.goodput import Slo
    from rayspec.planning.gpus import find_gpu
    from rayspec.planning.layouts import Machine, Needs, layouts, measured_layouts
    from rayspec.planning.model_sizes import find_model
    from rayspec.planning.plan import rank
    from rayspec.planning.roofline import ASSUMPTIONS
    from rayspec.planning.scaling_law import sizes
    from rayspec.routing.types import Lane

    wanted = traffic.Traffic(
        trace, rate, users, think, requests, mix, class_, arrival_cv, length_cv,
        prompt_tokens, output_tokens, acceptance or (), seed,
    )  # fmt: skip
    measured = open_calibration(calibration or DEFAULT)
    classes = wanted.profiles(measured.classes)
    made = wanted.make(classes, default_users=8)
    classes = {name: profile for name, profile in classes.items() if name in made.classes}
    slo = Slo(
        None if slo_ttft is None else slo_ttft / 1e3, None if slo_tpot is None else slo_tpot / 1e3
    )
    suggested: list[DraftSize] = []
    notes = list(measured.notes)
    if calibration is not None:
        measured = measured.model_copy(update={"classes": classes})
        found = measured_layouts(measured, gpus)
    else:
        context = float((made.prompt_tokens + made.output_tokens / 2).mean())
        machine = Machine(find_gpu(gpu, memory_gb), gpus)
        model = find_model(target, dtype, kv_dtype)
        drafts = [find_model(ref, "auto", kv_dtype) for ref in draft or ("1b", "135m")]
        known = find_model(acceptance_draft).shape.parameters
        needs = Needs(max_model_len, context, max_num_seqs)
        found = layouts(machine, model, drafts, classes, known, needs)
        parallel = next(
            layout.calibration.lanes[Lane.PLAIN].gpus
            for layout in found
            if Lane.PLAIN in layout.replicas
        )
        suggested = sizes(
            model, machine.gpu, classes, known, tensor_parallel=parallel, batch=8, tiers=_TIERS
        )
        guessed = [one.name for one in (model, *drafts) if one.assumed]
        notes = [
            *ASSUMPTIONS,
            f"acceptance is that of the example {DEFAULT} where --acceptance does not tell it, "
            f"taken as that of a {acceptance_draft} draft, and for other sizes by a scaling law",
            *([f"shapes of {', '.join(guessed)} follow from their size alone"] if guessed else []),
        ]
    with Bar(len(found) * len(made), quiet) as bar:
        ranked = rank(found, made, slo, attainment=attainment, seed=seed, progress=bar.update)
    if json_:
        typer.echo(json.dumps(_as_json(ranked, suggested, notes), indent=1))
    else:
        _print(ranked[:top], len(ranked), slo.given, attainment, suggested, notes)


def _print(
    ranked: Sequence[Ranked],
    total: int,
    limits: bool,
    attainment: float,
    suggested: Sequence[DraftSize],
    notes: Sequence[str],
) -> None:
    from rayspec.planning.scaling_law import RULE_OF_200
    from rayspec.planning.simulation_report import columns

    for note in notes:
        typer.echo(f"  - {note}")
    typer.echo()
    rows: list[Sequence[str]] = [
        ("", "layout", "GPUs", "within", "good/s", "per GPU", "TTFT ms p50/p95", "TPOT ms", "E2E s")
    ]
    for place, one in enumerate(ranked, start=1):
        result = one.result
        rows.append(
            (
                str(place),
                one.layout.name,
                str(one.layout.gpus),
                f"{result.attainment:.1%}",
                f"{result.goodput_rps:.3g}",
                f"{one.per_gpu:.3g}",
                f"{1e3 * result.ttft.p50:.0f} / {1e3 * result.ttft.p95:.0f}",
                f"{1e3 * result.tpot.p50:.1f} / {1e3 * result.tpot.p95:.1f}",
                f"{result.total.p50:.2f} / {result.total.p95:.2f}",
            )
        )
    typer.echo(columns(rows))
    if total > len(ranked):
        typer.echo(f"and {total - len(ranked)} more (--top)")
    best = ranked[0]
    typer.echo()
    if limits and not best.good:
        typer.echo(
            f"No layout keeps the limits for {attainment:.0%} of the requests; the closest is "
            f"{best.layout.name} with {best.result.attainment:.1%}."
        )
    else:
        within = f", {best.result.attainment:.1%} within the limits" if limits else ""
        typer.echo(
            f"Take {best.layout.name}: {best.per_gpu:.3g} requests per second and GPU{within}."
        )
    for name, filled in best.layout.memory.items():
        typer.echo(f"memory of a GPU, {name}: {_memory(filled)}")
    if suggested:
        first = suggested[0]
        typer.echo(
            f"draft size by scaling law (very rough, see rayspec.planning.scaling_law): about "
            f"{_count(first.parameters)}, {first.speedup:.2f}x plain at 8 sequences with K = "
            f"{first.k}; then "
            + ", ".join(f"{_count(s.parameters)} ({s.speedup:.2f}x)" for s in suggested[1:4])
            + f". Published rule: 1/{RULE_OF_200} of the target. A shallow draft beats a deep one "
            "of its size: each layer costs about 40 us for each drafted token."
        )


def _memory(filled: Budget) -> str:
    parts = {
        "weights": filled.weights,
        "KV": filled.kv,
        "activations": filled.activations,
        "graphs": filled.graphs,
        "kept free": filled.reserved,
    }
    text = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in parts.items())
    return f"{text} GiB; the KV cache holds {filled.kv_tokens:,} tokens"


def _count(parameters: float) -> str:
    return f"{parameters / 1e9:g}B" if parameters >= 1e9 else f"{parameters / 1e6:g}M"


def _as_json(
    ranked: Sequence[Ranked], suggested: Sequence[DraftSize], notes: Sequence[str]
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "notes": list(notes),
        "layouts": [
            {
                "name": one.layout.name,
                "gpus": one.layout.gpus,
                "replicas": {str(lane): count for lane, count in one.layout.replicas.items()},
                "good": one.good,
                "goodput_per_gpu": one.per_gpu,
                "result": one.result.as_dict(),
                "memory": {name: asdict(filled) for name, filled in one.layout.memory.items()},
            }
            for one in ranked
        ],
        "draft_sizes": [asdict(size) for size in suggested],
    }
