"""`rayspec keys`: API keys for the ingress."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Make API keys for clients of an application.", no_args_is_help=True)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Names the client in metrics and refusals.")],
    requests_per_minute: Annotated[
        float | None, typer.Option(help="Requests that the key may begin in a minute.")
    ] = None,
    concurrent_requests: Annotated[
        int | None, typer.Option(help="Requests that the key may have unanswered at once.")
    ] = None,
) -> None:
    """Print a new key, once, and the entry of `ingress.api_keys` that lets it in.

    The key goes to standard output, the entry, which has only its hash, to standard error.
    """
    import yaml

    from rayspec.config import parse_keys
    from rayspec.ingress.keys import digest, new_key

    key = new_key()
    entry: dict[str, object] = {"name": name, "sha256": digest(key).hex()}
    if requests_per_minute is not None:
        entry["requests_per_minute"] = requests_per_minute
    if concurrent_requests is not None:
        entry["concurrent_requests"] = concurrent_requests
    parse_keys({"api_keys": [entry]})
    typer.echo("# The key; it is not kept anywhere:", err=True)
    typer.echo(key)
    typer.echo("# Add to ingress.api_keys:", err=True)
    typer.echo(yaml.safe_dump([entry], sort_keys=False).rstrip(), err=True)
