"""`rayspec doctor`: what will not work here, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A Serve YAML, or the bare arguments of one application; by default "
            "deployments/app.yaml."
        ),
    ] = None,
    application: Annotated[
        str | None,
        typer.Option(help="Which application, where the file has several of rayspec's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine and the application in FILE, without starting anything.

    One line per finding with its remedy, problems first; exit code 1 if there are any.
    """
    from rayspec.audit.doctor import Level, diagnose, render

    findings = diagnose(file, application)
    broken = any(finding.level is Level.PROBLEM for finding in findings)
    if as_json:
        listed = [{**asdict(each), "level": each.level.name.lower()} for each in findings]
        typer.echo(json.dumps({"ok": not broken, "findings": listed}, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(render(findings)))
    if broken:
        raise typer.Exit(1)
