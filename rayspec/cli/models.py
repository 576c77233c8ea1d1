"""`rayspec models`: fetch a model ahead of time, list what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Fetch models and list those that are here.", no_args_is_help=True)


@app.command()
def fetch(
    model: Annotated[
        str | None, typer.Argument(help="Alias (smollm2), Hugging Face id, or folder.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--for", help="Fetch all models of this configuration.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Download MODEL unless it is here already, and print its folder."""
    from rayspec.models import resolve

    if (model is None) == (config is None):
        raise typer.BadParameter("give either MODEL or --for FILE")
    wanted = [model] if model is not None else []
    if config is not None:
        from rayspec.config import load

        wanted = load(config).models()
    for ref in wanted:
        typer.echo(resolve(ref, progress=not quiet))


@app.command("list")
def list_() -> None:
    """List the models that have an alias: alias, folder and where it came from."""
    from rayspec.models import cache
    from rayspec.models.fetch import ALIASES

    for alias in ALIASES:
        folder = cache.lookup(alias)
        state = f"{folder}\t{cache.source(folder)}" if folder else "(not fetched)"
        typer.echo(f"{alias}\t{state}")
