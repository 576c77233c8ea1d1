"""`rayspec draft promote`: makes the new version of a draft the draft."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from rayspec.errors import RayspecError

_TIMEOUT_S = 30.0
_POLL_S = 1.0


class NotPromoted(RayspecError):
    """The new version is not to take over, or nobody could be asked."""


def promote(
    file: Annotated[
        Path, typer.Argument(help="The Serve YAML that is deployed, with draft.candidate.")
    ],
    application: Annotated[
        str | None,
        typer.Option(help="Which application, where the file has several of rayspec's."),
    ] = None,
    url: Annotated[str, typer.Option(help="The running application.")] = "http://127.0.0.1:8000",
    dashboard: Annotated[
        str, typer.Option(help="Ray's dashboard, which deploys.")
    ] = "http://127.0.0.1:8265",
    force: Annotated[
        bool, typer.Option("--force", help="Promote it whatever was measured.")
    ] = False,
    wait_s: Annotated[float, typer.Option(min=0, help="How long to wait until it serves.")] = 600.0,
) -> None:
    """Deploy FILE with the new version in the old one's place, if it was measured to be as good.

    Serve replaces replicas one after the other, and requests are answered all the while. FILE
    itself stays as it is: change it as the last line says.
    """
    import httpx

    from rayspec.config import load

    load(file, application=application)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if "applications" not in content:
        raise NotPromoted(f"{file} is no Serve YAML: it has no applications to deploy")
    changed, model = _promoted(file, content, application)
    key = os.environ.get("RAYSPEC_API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(timeout=_TIMEOUT_S) as client:
        try:
            state = client.get(f"{url}/ui/state", headers=headers).raise_for_status().json()
            _judge(state.get("trial"), force=force)
            client.put(f"{dashboard}/api/serve/applications/", json=changed).raise_for_status()
            _wait(client, dashboard, url, headers, wait_s)
        except httpx.HTTPError as error:
            raise NotPromoted(f"cannot ask {error.request.url}: {error}") from None
    typer.echo(f"{model} drafts now")
    typer.echo(f"in {file}: set draft.model to {model} and remove draft.candidate")


def _promoted(
    file: Path, content: Mapping[str, Any], application: str | None
) -> tuple[dict[str, Any], str]:
    """Return the Serve YAML with the new version as the draft, and the version's name."""
    changed = copy.deepcopy(dict(content))
    for args in _arguments(changed, application):
        draft = args.get("draft")
        if isinstance(draft, dict) and (candidate := draft.pop("candidate", None)):
            draft["model"] = candidate["model"]
            return changed, str(candidate["model"])
    raise NotPromoted(f"{file} has no draft.candidate, so there is nothing to promote")


def _arguments(content: Mapping[str, Any], application: str | None) -> Iterator[dict[str, Any]]:
    from rayspec.config.load import IMPORT_PATH

    for app in content["applications"]:
        named = application in (None, app.get("name", "default"))
        if app.get("import_path") == IMPORT_PATH and named:
            yield app.get("args") or {}


def _judge(trial: Mapping[str, Any] | None, *, force: bool) -> None:
    """Raise unless the new version is to take over."""
    if trial is None:
        raise NotPromoted("the application tries no new draft: deploy the file first")
    if force or trial["state"] == "promoted":
        return
    seen, found = trial["requests"], trial["tokens_per_step"]
    told = f"{seen['new']} requests beside {seen['old']} of the old one"
    if found is not None:
        told += f", {found['gain']:+.3f} tokens a step ({found['low']:+.3f}..{found['high']:+.3f})"
    if trial["state"] == "trial":
        raise NotPromoted(f"undecided after {told}: wait, or use --force")
    raise NotPromoted(f"rolled back after {told}: remove draft.candidate, or use --force")


def _wait(client: Any, dashboard: str, url: str, headers: Mapping[str, str], wait_s: float) -> None:
    """Wait until everything that was deployed runs, with a draft attached."""
    import httpx

    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
        try:
            if _runs(client, dashboard) and _drafts(client, url, headers):
                return
        except httpx.HTTPError:
            pass  # an HTTP server that stops
    raise NotPromoted(f"deployed, but it does not run with a draft after {wait_s:.0f} s")


def _runs(client: Any, dashboard: str) -> bool:
    answer = client.get(f"{dashboard}/api/serve/applications/").raise_for_status().json()
    return all(app["status"] == "RUNNING" for app in answer["applications"].values())


def _drafts(client: Any, url: str, headers: Mapping[str, str]) -> bool:
    state = client.get(f"{url}/ui/state", headers=headers).raise_for_status().json()
    links = state["links"]
    return state["trial"] is None and bool(links) and all(link["attached"] for link in links)
