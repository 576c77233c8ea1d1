"""Gathers what is known about an application: its models, its port, what Serve is told."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from rayspec.audit.doctor_facts import Application, Model, Port
from rayspec.config import AppConfig, derive, load, parse
from rayspec.draft.identity import describe_difference
from rayspec.errors import ModelError, RayspecError

__all__ = ["gather_application", "locate", "probe"]

_DEFAULT = Path(__file__).parents[2] / "deployments" / "app.yaml"
# The same, for an installation without the repository.
_BUILTIN = {"model": "smollm2", "speculative": {}, "plain": {}, "draft": {"kind": "ngram"}}
_SERVE_HOST, _SERVE_PORT = "127.0.0.1", 8000  # Serve's own defaults
_PROBE_S = 1.0


def gather_application(file: Path | None, name: str | None, *, has_gpu: bool) -> Application:
    """Return the application in `file`, or the default one; `ConfigError` if it is not valid."""
    chosen = file or (_DEFAULT if _DEFAULT.is_file() else None)
    config = load(chosen, application=name) if chosen else parse(_BUILTIN)
    options = _serve_options(chosen) if chosen else {}
    spec = derive(config, has_gpu=has_gpu)
    models = {ref: locate(ref) for ref in config.models()}
    http = options.get("http_options") or {}
    tracing = options.get("tracing_config")
    return Application(
        name=str(chosen) if chosen else "the default application",
        config=config,
        spec=spec,
        port=probe(http.get("host") or _SERVE_HOST, http.get("port") or _SERVE_PORT),
        models=models,
        difference=_difference(config, models),
        tracing=tracing if isinstance(tracing, dict) and tracing.get("enabled", True) else None,
    )


def _serve_options(file: Path) -> Mapping[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content if "applications" in content else {}


def locate(ref: str) -> Model:
    """Find a model on this machine without fetching it."""
    from rayspec.models import cache, hub
    from rayspec.models.fetch import ALIASES

    path = Path(ref).expanduser()
    if ref in ALIASES:
        folder = cache.lookup(ref)
    elif path.exists() or not hub.looks_like_id(ref):
        if not (path / "config.json").is_file():
            return Model(ref, missing="is neither a model folder nor a Hugging Face id")
        folder = path.absolute()
    else:
        folder = _in_hub_cache(ref)
    if folder is None:
        return Model(ref, missing="is not on this machine", reachable=hub.reachable())
    found = Model(ref, folder, config=_read(folder / "config.json"))
    return found if not (gap := _gap(folder)) else replace(found, folder=None, missing=gap)


def _in_hub_cache(ref: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(ref, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / "config.json").is_file() else None


def _gap(folder: Path) -> str:
    """Say which weights of a model are missing: a download may have been broken off."""
    index = folder / "model.safetensors.index.json"
    files = set(_read(index).get("weight_map", {}).values()) if index.is_file() else set()
    if absent := sorted(name for name in files if not (folder / name).is_file()):
        return f"lacks {len(absent)} of {len(files)} weight files, {absent[0]} first"
    return "" if any(folder.glob("*.safetensors")) else "has no weights in safetensors format"


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None
    return content if isinstance(content, dict) else {}


def _difference(config: AppConfig, models: Mapping[str, Model]) -> str | None:
    target = models[config.model].folder
    for draft in config.draft_models():
        folder = models[draft].folder
        if draft == config.model or target is None or folder is None:
            continue
        try:
            difference = describe_difference(target, folder)
        except RayspecError as error:
            difference = str(error)
        if difference is not None:
            return f"{draft} cannot draft for {config.model}: {difference}"
    return None


def probe(host: str, number: int) -> Port:
    """Tell whether HTTP can listen there, and if not, whether one of ours already does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
        except PermissionError:
            return Port(host, number, "denied")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Port(host, number, "no such address")
        else:
            return Port(host, number)
    return Port(host, number, "serving" if _ours(host, number) else "taken")


def _ours(host: str, number: int) -> bool:
    import httpx

    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    try:
        metrics = httpx.get(f"http://{local}:{number}/metrics", timeout=_PROBE_S, trust_env=False)
    except httpx.HTTPError:
        return False
    return metrics.is_success and "rayspec_" in metrics.text
