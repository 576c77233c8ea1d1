"""Finds what keeps an application from working on this machine, without starting anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rayspec.audit.doctor_application import gather_application
from rayspec.audit.doctor_checks import check_application
from rayspec.audit.doctor_facts import Application, Finding, Level, Machine
from rayspec.audit.doctor_gather import gather_machine
from rayspec.audit.doctor_machine import check_machine
from rayspec.audit.doctor_memory import check_memory
from rayspec.errors import ConfigError, ModelError

__all__ = ["Finding", "Level", "diagnose", "examine", "render"]


def diagnose(file: Path | None = None, application: str | None = None) -> list[Finding]:
    """Gather the facts about this machine and an application, and return all findings."""
    machine = gather_machine()
    has_gpu = bool(
        machine.gpus.visible if machine.gpus.visible is not None else machine.gpus.devices
    )
    try:
        app = gather_application(file, application, has_gpu=has_gpu)
    except ConfigError as error:
        wrong = f"{error.field} = {error.value!r}"
        broken = Finding(Level.PROBLEM, "configuration", wrong, error.remedy)
        return _ordered([broken, *check_machine(machine, device="cuda" if has_gpu else "cpu")])
    except ModelError as error:
        broken = Finding(Level.PROBLEM, "model", str(error), "fetch the model again")
        return _ordered([broken, *check_machine(machine, device="cuda" if has_gpu else "cpu")])
    return examine(app, machine)


def examine(app: Application, machine: Machine) -> list[Finding]:
    """Return what there is to say about `app` on `machine`, the worst first."""
    specs = (*app.spec.targets, app.spec.draft)
    on_gpu = any(spec is not None and spec.device == "cuda" for spec in specs)
    return _ordered(
        [
            *check_application(app, machine),
            *check_memory(app, machine),
            *check_machine(machine, device="cuda" if on_gpu else "cpu"),
        ]
    )


def _ordered(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.level)


def render(findings: Sequence[Finding]) -> list[str]:
    """Return a line for each finding, and one that counts them."""
    width = max((len(finding.topic) for finding in findings), default=0)
    lines = []
    for each in findings:
        remedy = f" -> {each.remedy}" if each.remedy else ""
        lines.append(f"{each.level.name.lower():7}  {each.topic:{width}}  {each.what}{remedy}")
    counts = [sum(each.level is level for each in findings) for level in Level]
    lines.append(f"{_count(counts[0], 'problem')}, {_count(counts[1], 'warning')}, {counts[2]} ok")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
