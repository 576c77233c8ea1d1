"""`rayspec calibrate`: measure an application, for `rayspec simulate` and `rayspec plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rayspec.planning.calibrate import Outcome


def calibrate(
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    url: Annotated[str, typer.Option(help="The running application.")] = "http://127.0.0.1:8000",
    app: Annotated[
        Path | None, typer.Option(help="Start this Serve YAML for the time of the measurement.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="The Serve YAML of the running application, for limits of its engines."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='JSON lines, {"class": …, "prompt": …} or bodies of OpenAI requests: what your '
            "users ask. Answers end at `max_tokens` of the body, else at 256 tokens (96 with "
            "--quick). By default a few built-in ones."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One look at few cells: minutes on a laptop.")
    ] = False,
    k: Annotated[
        str, typer.Option(help="Draft lengths to measure, such as 0,2,4; by default a few.")
    ] = "",
    budget_s: Annotated[
        float | None, typer.Option(min=1, help="Stop after so many seconds.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw time per token of both lanes by load, one panel per class."),
    ] = None,
    note: Annotated[
        list[str] | None,
        typer.Option(help="A line to keep in the file, such as what ran beside; may be repeated."),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show the cells that are left.")] = True,
) -> None:
    """Measure step times, prefill, contention and acceptance of an application.

    The application must be idle. Ctrl-C keeps what was measured: the same command goes on.
    """
    import asyncio
    from contextlib import nullcontext

    from rayspec.config import load
    from rayspec.planning.calibrate import Options
    from rayspec.planning.calibrate import calibrate as measure
    from rayspec.planning.calibrate_app import StartedApp
    from rayspec.planning.calibrate_limits import Limits, limits_of
    from rayspec.planning.calibrate_machine import has_gpu
    from rayspec.planning.calibrate_plot import draw
    from rayspec.planning.calibrate_prompts import built_in, read_prompts

    if app and config:
        raise typer.BadParameter("give either --app or --config")
    file = app or config
    options = Options(
        url=url,
        out=out,
        prompts=read_prompts(prompts) if prompts else built_in(),
        depth="quick" if quick else "full",
        limits=limits_of(load(file), has_gpu=has_gpu()) if file else Limits(),
        tiers=_tiers(k),
        budget_s=budget_s,
        notes=tuple(note or ()),
        progress=progress,
    )
    if app:
        typer.echo(f"starting {app}; this takes a while", err=True)
    with StartedApp(app, url) if app else nullcontext():
        outcome = asyncio.run(measure(options))
    _report(outcome, out)
    if plot is not None:
        draw(outcome.calibration, plot)
        typer.echo(f"crossover of each class: {plot}")


def _tiers(text: str) -> tuple[int, ...]:
    try:
        tiers = tuple(sorted({int(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        raise typer.BadParameter(f"--k {text}: numbers with commas between them") from None
    if any(tier < 0 for tier in tiers):
        raise typer.BadParameter(f"--k {text}: draft lengths are not negative")
    return tiers


def _report(outcome: Outcome, out: Path) -> None:
    calibration = outcome.calibration
    for lane, profile in calibration.lanes.items():
        alone = min(step.seconds for step in profile.steps)
        prefill = profile.prefill
        error = {what: calibration.residuals[f"{lane} {what}"] for what in ("steps", "prefill")}
        typer.echo(
            f"{lane:12} {len(profile.steps)} step times from {alone * 1e3:.1f} ms on, fit "
            f"±{error['steps']:.0%}; prefill {prefill.base_s * 1e3:.1f} ms and "
            f"{prefill.per_token_s * 1e3:.3f} ms a token, fit ±{error['prefill']:.0%}; "
            f"contention {profile.contention:.2f}; a prompt beside decoding adds "
            f"{profile.mixing:.0%} of the shorter, after {profile.wait_steps} steps; outside the "
            f"engine {profile.overhead_s * 1e3:.1f} ms, and "
            f"{profile.busy_overhead_s * 1e3:.1f} more while it works"
        )
    for name, kind in sorted(calibration.classes.items()):
        rates = " ".join(f"{rate:.2f}" for rate in kind.acceptance)
        typer.echo(
            f"{name:12} accepted by position {rates or '-'} ({kind.drafted} drafts, offered "
            f"{kind.coverage:.0%}); {kind.prompt_tokens:.0f} tokens in, "
            f"{kind.output_tokens:.0f} out"
        )
    for remark in outcome.remarks:
        typer.echo(f"note: {remark}", err=True)
    typer.echo(f"written: {out}")
