"""`rayspec top`: lanes, draft link, acceptance, crossover and decisions in a terminal."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayspec.errors import RayspecError

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 8.0


class NotShown(RayspecError):
    """A running application does not tell what there is to show."""


def top(
    url: Annotated[str, typer.Option(help="The running application.")] = "http://127.0.0.1:8000",
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    rows: Annotated[int, typer.Option(min=0, help="Decisions to print with --once.")] = 12,
) -> None:
    """Show in a terminal what the built-in page at /ui shows, until Ctrl-C.

    Where the application asks for API keys, the environment variable RAYSPEC_API_KEY holds one.

    Exit codes: 0 shown, 1 the application could not be asked.
    """
    import httpx
    from rich.console import Console
    from rich.live import Live

    from rayspec.cli.top_view import fitting, render, trouble

    key = os.environ.get("RAYSPEC_API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    console = Console()
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S) as client:
        if once:
            console.print(render(_ask(client), rows))
            return
        state: dict[str, Any] | None = None
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                try:
                    state, problem = _ask(client), None
                except NotShown as error:
                    problem = str(error)
                shown = render(state, fitting(state, console.height)) if state else None
                live.update(trouble(problem, shown) if problem else shown or "", refresh=True)
                time.sleep(every)


def _ask(client: httpx.Client) -> dict[str, Any]:
    """Return the document; raises `NotShown` with one line that says why there is none."""
    import httpx

    try:
        answer = client.get("ui/state")
        answer.raise_for_status()
        state: dict[str, Any] = answer.json()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        hint = {
            401: ": set RAYSPEC_API_KEY",
            403: ": RAYSPEC_API_KEY is not accepted",
            404: ": is ingress.ui switched off there?",
        }
        raise NotShown(f"{error.request.url} answers {status}{hint.get(status, '')}") from None
    except (httpx.HTTPError, ValueError) as error:
        told = str(error) or type(error).__name__
        raise NotShown(f"cannot ask {client.base_url}: {told}") from None
    return state
