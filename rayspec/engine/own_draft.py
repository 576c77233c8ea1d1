"""The speculative target whose engine drafts itself, by a method of vLLM's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from rayspec.config import TargetSpec
from rayspec.engine.cpu import CpuShare
from rayspec.engine.launch import own_draft_args
from rayspec.engine.replica import PlainTarget
from rayspec.telemetry.own_draft import OwnDraftCollector

__all__ = ["OwnDraftTarget"]


class OwnDraftTarget(PlainTarget):
    """One vLLM engine that needs no draft deployment: it always has what drafts for it.

    What routing learns of it comes from vLLM's own counts, those of a request and of the engine.
    """

    async def __init__(self, spec: TargetSpec, cpus: CpuShare) -> None:  # type: ignore[misc]
        self.lane = spec.lane
        await super().__init__(spec, cpus)
        REGISTRY.register(OwnDraftCollector(self._method, self._by_position))

    def _engine_args(self, path: Path) -> Mapping[str, Any]:
        return own_draft_args(self._spec, path)

    @property
    def attached(self) -> bool:
        """Whether a draft answers this engine: as long as it lives."""
        return True

    @property
    def _method(self) -> str:
        speculation = self._spec.speculation
        return "" if speculation is None or speculation.own is None else speculation.own.method

    def _by_position(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        stats = self._serving.stats()
        return stats.drafted_per_pos, stats.accepted_per_pos

    def links(self) -> dict[str, Any]:
        """Return how this replica's drafts fare, in the form in which others tell of links."""
        drafted, accepted = self._by_position()
        return {
            "replica": self._replica,
            "lane": str(self.lane),
            "method": self._method,
            "attached": self.attached,
            "k": None,
            "disabled_reason": None,
            "drafted_per_pos": list(drafted),
            "accepted_per_pos": list(accepted),
            "shards": [],
        }
