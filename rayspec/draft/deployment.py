"""The draft as a Ray Serve deployment: starts a draft server and introduces targets to it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import ray
from prometheus_client import CollectorRegistry, generate_latest
from ray import serve

from rayspec.config import DraftSpec
from rayspec.draft.build import build_drafter
from rayspec.draft.identity import (
    describe_difference,
    model_max_len,
    model_vocab_size,
    tokenizer_hash,
)
from rayspec.draft.manifest import DraftManifest, unbound
from rayspec.draft.server import DraftServer
from rayspec.draft.spec import DraftServerSpec
from rayspec.errors import ConfigError, Unavailable
from rayspec.link.protocol import Hello
from rayspec.link.ticket import Ticket
from rayspec.models.fetch import resolve
from rayspec.priority import warn_if_low
from rayspec.telemetry import logs
from rayspec.telemetry.draft import DraftCollector
from rayspec.telemetry.exposition import Source

__all__ = ["Draft"]

logger = logging.getLogger(__name__)


class Draft:
    """One draft server; refuses to start when its model does not fit the target's."""

    # Serve awaits an asynchronous constructor; the language does not know.
    async def __init__(self, spec: DraftSpec) -> None:  # type: ignore[misc]
        logs.configure()
        warn_if_low()
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._server = await asyncio.to_thread(start_server, spec)
        self._registry = CollectorRegistry()
        self._registry.register(DraftCollector(self._server.stats))

    def attach(self, hello: Hello) -> Ticket:
        """Admit a target; raises `LinkRefused` naming what does not fit."""
        return self._server.admit(hello)

    def holds(self, link_id: str) -> bool:
        """Return whether the target that joined with a ticket is still there."""
        return self._server.holds(link_id)

    def metrics_text(self) -> Source:
        """Return this draft's metrics."""
        labels = {"component": "draft", "replica": self._replica}
        return Source(generate_latest(self._registry).decode(), labels)

    def check_health(self) -> None:
        """Raise if no target can be served, so that Serve replaces this replica."""
        if not self._server.healthy():
            raise Unavailable("the draft server does not run")

    def __del__(self) -> None:
        # Serve calls this when it retires the replica.
        if (server := getattr(self, "_server", None)) is not None:
            server.close()


def start_server(spec: DraftSpec) -> DraftServer:
    """Fetch the models, compare them, and return a running server on this node's address."""
    target = resolve(spec.target_model)
    model = None if spec.model is None else resolve(spec.model)
    if model is not None and (difference := describe_difference(target, model)) is not None:
        raise ConfigError(
            spec.model_field,
            spec.model,
            f"does not fit the model {spec.target_model}: {difference}",
        )
    if model is not None:
        _check_binding(spec, model, target)
    drafter, _, _ = build_drafter(
        spec.kind,
        model=None if model is None else str(model),
        vocab_size=model_vocab_size(target),
        slots=spec.slots,
        max_len=spec.max_len or model_max_len(target),
        threads=spec.num_threads,
        device=spec.device,
        engine=spec.engine,
        quantization=spec.quantization,
        vocab_trim=_beside(model, spec.vocab_trim),
        load_format=spec.load_format,
        fused=spec.fused,
        kv_gib=spec.kv_gib,
        sampling=spec.sampling,
        top_m=spec.top_m,
        targets=spec.targets,
        k_tiers=spec.k_tiers,
        ngram_min=spec.ngram_min,
        ngram_max=spec.ngram_max,
    )
    server = DraftServer(
        drafter,
        DraftServerSpec(
            host=ray.util.get_node_ip_address(),
            vocab_size=model_vocab_size(target),
            tokenizer_hash=tokenizer_hash(target),
            k_max=spec.k_max,
            max_slots=spec.target_slots,
        ),
    )
    server.start()
    logger.info("%s draft ready", spec.kind)
    return server


def _check_binding(spec: DraftSpec, model: Path, target: Path) -> None:
    """Raise ConfigError for a distilled draft that was made for another target."""
    manifest = DraftManifest.load(model)
    if manifest is None or spec.other_weights:
        return
    difference = unbound(model, manifest, target)
    if difference is not None:
        remedy = "set draft.other_weights to take it all the same, or " * difference.weights
        raise ConfigError(
            spec.model_field,
            spec.model,
            f"{difference.why}; {remedy}distil one for {spec.target_model}",
        )


def _beside(model: Path | None, file: str | None) -> str | None:
    """Return the path of a file; a name without a folder is one of the model's folder."""
    if model is None or file is None or Path(file).name != file:
        return file
    return str(model / file)
