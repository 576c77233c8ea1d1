"""`rayspec simulate`: what speculation does to your traffic, before you deploy it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rayspec.cli import traffic
from rayspec.cli.progress import Bar

if TYPE_CHECKING:
    from rayspec.planning.calibration import Calibration
    from rayspec.planning.goodput import Slo
    from rayspec.planning.scenarios import Outcome, Scenario
    from rayspec.planning.traces import Trace
    from rayspec.planning.verdict import Verdict

_RELATIVE = (0.25, 0.5, 1.0, 2.0, 4.0)
_USERS = (1, 2, 4, 8, 16, 32, 64)
_DEFAULT_USERS = 8


def simulate(
    calibration: Annotated[
        str | None,
        typer.Option(
            help="What `rayspec calibrate` measured: a file, or the name of a shipped example.",
            metavar="FILE",
        ),
    ] = None,
    trace: traffic.TraceFile = None,
    rate: traffic.Rate = None,
    users: traffic.Users = None,
    think: traffic.Think = 0.0,
    requests: traffic.Requests = 5000,
    mix: traffic.Mix = "",
    class_: traffic.Class = None,
    arrival_cv: traffic.ArrivalCv = 1.0,
    length_cv: traffic.LengthCv = 0.5,
    prompt_tokens: traffic.PromptTokens = None,
    output_tokens: traffic.OutputTokens = None,
    acceptance: traffic.Acceptances = None,
    seed: traffic.Seed = 0,
    speculative_replicas: Annotated[
        int, typer.Option(help="Speculative engines of the routed scenario.", min=0)
    ] = 1,
    plain_replicas: Annotated[
        int, typer.Option(help="Plain engines of the routed scenario.", min=0)
    ] = 1,
    k: Annotated[
        int | None,
        typer.Option(
            help="Drafts per step of always on; the largest measured if not given.", min=1
        ),
    ] = None,
    slo_ttft: traffic.SloTtft = None,
    slo_tpot: traffic.SloTpot = None,
    sweep: Annotated[
        str | None,
        typer.Option(help="Several loads instead of one: users, or rates with --rate; as 1,4,16."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency against the load (.png, .svg or .pdf).")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of tables; times in seconds.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Answer whether to enable speculation for your traffic.

    Simulates continuous batching under your traffic on equal hardware:
    without speculation, with speculation for everything, with rayspec's
    routing, and with an oracle that knows every answer's length. Prints
    latencies per class, then one sentence per class.

    Five minutes, on a laptop, without a GPU:

      rayspec simulate

      rayspec simulate --rate 20 --mix code=0.3,chat=0.7 --slo-tpot 8

      rayspec simulate --users 16 --acceptance code=0.75 --mix code

      rayspec simulate --trace AzureLLMInferenceTrace_code.csv --class code

      rayspec simulate --plot latency.png

    The first is an example with 8 users; the last draws 1 to 64 users.

    It is as good as its calibration. The shipped one is put together
    from measurements of another machine, and says so: measure yours
    with `rayspec calibrate`, then give --calibration FILE.
    """
    from rayspec.planning.examples import DEFAULT, open_calibration
    from rayspec.planning.goodput import Slo
    from rayspec.planning.scenarios import scenarios

    source = calibration or DEFAULT
    measured = open_calibration(source)
    wanted = traffic.Traffic(
        trace, rate, users, think, requests, mix, class_, arrival_cv, length_cv,
        prompt_tokens, output_tokens, acceptance or (), seed,
    )  # fmt: skip
    measured = measured.model_copy(update={"classes": wanted.profiles(measured.classes)})
    slo = Slo(
        None if slo_ttft is None else slo_ttft / 1e3, None if slo_tpot is None else slo_tpot / 1e3
    )
    which = scenarios(measured, speculative_replicas, plain_replicas, k)
    base = wanted.make(measured.classes, default_users=_DEFAULT_USERS)
    loads = _loads(base, sweep, plot)
    if not json_:
        _introduce(measured, source, calibration is None, which, base)
    runs: list[tuple[float | None, dict[str, Outcome], list[Verdict]]] = []
    with Bar(len(base) * len(which) * len(loads), quiet) as bar:
        for load in loads:
            outcomes, verdicts = _run(measured, _at(base, load), which, slo, seed, bar)
            runs.append((load, outcomes, verdicts))
    if json_:
        from rayspec.planning.simulation_report import as_json

        settings = {"requests": len(base), "users": base.users, "rate": base.rate, "seed": seed}
        typer.echo(json.dumps(as_json(measured, source, slo, runs, settings), indent=1))
    else:
        for load, outcomes, verdicts in runs:
            _print(load, base, outcomes, verdicts)
    if plot is not None:
        from rayspec.planning.simulation_plot import draw

        draw(
            [(load or 0.0, outcomes) for load, outcomes, _ in runs],
            plot,
            load="users at a time" if base.users else "requests per second",
            title=f"{measured.model}, {measured.hardware} (simulated)",
            attainment=slo.given,
        )
        typer.echo(f"drawn: {plot}", err=True)


def _run(
    calibration: Calibration,
    trace: Trace,
    which: Sequence[Scenario],
    slo: Slo,
    seed: int,
    bar: Bar,
) -> tuple[dict[str, Outcome], list[Verdict]]:
    from rayspec.planning.scenarios import compare
    from rayspec.planning.verdict import judge
    from rayspec.planning.workload import Workload

    workload = Workload(trace, calibration.classes, seed)
    outcomes = compare(calibration, workload, which, slo, bar.update)
    found = (judge(name, outcomes, calibration, slo, workload.context) for name in trace.classes)
    return outcomes, [verdict for verdict in found if verdict is not None]


def _loads(base: Trace, sweep: str | None, plot: Path | None) -> list[float | None]:
    """Return the loads to simulate; None is the traffic as it is."""
    from rayspec.errors import ConfigError

    if sweep is None and plot is None:
        return [None]
    if not base.users and not base.rate:
        raise ConfigError("trace", len(base), "requests at one moment have no rate to vary")
    if sweep is None:
        if base.users:
            return [float(users) for users in sorted({*_USERS, base.users})]
        return [base.rate * factor for factor in _RELATIVE]
    try:
        loads = sorted({float(part) for part in sweep.split(",")})
    except ValueError:
        loads = []
    if not loads or loads[0] <= 0 or (base.users and any(load % 1 for load in loads)):
        what = "whole numbers of users" if base.users else "rates"
        raise ConfigError("sweep", sweep, f"is not a list of {what}, as 1,2,4")
    return list(loads)


def _at(base: Trace, load: float | None) -> Trace:
    if load is None:
        return base
    return base.with_users(int(load), base.think_s) if base.users else base.at_rate(load)


def _introduce(
    calibration: Calibration, source: str, example: bool, which: Sequence[Scenario], base: Trace
) -> None:
    if example or calibration.notes:
        kind = "EXAMPLE, not your hardware" if example else "NOTE"
        typer.secho(f"{kind}: calibration {source}", bold=True)
        for note in calibration.notes:
            typer.echo(f"  - {note}")
    typer.echo(f"model     {calibration.model}; draft {calibration.draft or 'none'}")
    typer.echo(f"hardware  {calibration.hardware or 'not said'}")
    load = f"{base.users} users" if base.users else f"{base.rate:.3g} requests/s"
    typer.echo(f"traffic   {len(base)} requests, {load}, classes {', '.join(base.classes)}")
    for scenario in which:
        typer.echo(f"engines   {scenario.name}: {scenario.hardware}")


def _print(
    load: float | None,
    base: Trace,
    outcomes: Mapping[str, Outcome],
    verdicts: Sequence[Verdict],
) -> None:
    from rayspec.planning.simulation_report import results_table

    typer.echo()
    if load is not None:
        typer.secho(f"{load:g} {'users' if base.users else 'requests/s'}", bold=True)
    typer.echo(results_table(outcomes))
    typer.echo()
    for verdict in verdicts:
        typer.echo(verdict.sentence)
