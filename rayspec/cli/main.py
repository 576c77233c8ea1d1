"""Composes the commands and turns errors into one line and an exit code."""

from __future__ import annotations

import logging
import sys

import typer

from rayspec.cli import (
    calibrate,
    config,
    distill,
    doctor,
    draft,
    keys,
    models,
    plan,
    simulate,
    top,
    verify,
    version,
)
from rayspec.errors import RayspecError

app = typer.Typer(
    name="rayspec",
    help="Distributed speculative decoding on Ray Serve and vLLM.\n\n"
    "Exit codes: 0 done, 1 something is wrong (one line on standard error says what), "
    "2 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("calibrate")(calibrate.calibrate)
app.add_typer(config.app, name="config")
app.command("distill")(distill.distill)
app.command("doctor")(doctor.doctor)
app.add_typer(draft.app, name="draft")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.command("plan")(plan.plan)
app.command("simulate")(simulate.simulate)
app.command("top")(top.top)
app.command("verify")(verify.verify)
app.command("version")(version.version)


def main() -> None:
    """Run the command line of this process."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    try:
        app()
    except RayspecError as exc:
        typer.echo(f"rayspec: {exc}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
