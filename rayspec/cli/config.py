"""`rayspec config`: check a configuration, print its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check configurations and print their schema.", no_args_is_help=True)


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(help="A Serve YAML, or the bare arguments of one application.")
    ],
    application: Annotated[
        str | None,
        typer.Option(help="Which application, where the file has several of rayspec's."),
    ] = None,
) -> None:
    """Validate FILE without starting anything."""
    from rayspec.config import load

    config = load(file, application=application)
    names = ("speculative", "alternative", "plain")
    *most, last = (name for name in names if getattr(config, name) is not None)
    lanes = f"{', '.join(most)} and {last}" if most else last
    kinds: list[str] = [config.draft.kind] if config.draft else []
    kinds += [lane.draft.method for lane in config.drafting().values() if lane.draft is not None]
    draft = f", draft {' and '.join(kinds)}" if kinds else ""
    typer.echo(f"{file}: valid (model {config.model}, lanes {lanes}{draft})")


@app.command()
def schema() -> None:
    """Print the JSON schema of a configuration: every field with default, unit and limits."""
    from rayspec.config import AppConfig

    typer.echo(json.dumps(AppConfig.model_json_schema(), indent=2, ensure_ascii=False))
