"""One scrape for the whole application: ingress, lanes, draft."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rayspec.ingress.lanes import LaneDown, ServeDeployment
from rayspec.telemetry.exposition import Source, merge

__all__ = ["scrape"]

TIMEOUT_S = 3.0


async def scrape(deployments: Sequence[ServeDeployment]) -> str:
    """Return the metrics of every replica that answers in time, labelled by where they are from."""
    answers = await asyncio.gather(*(_sources(each) for each in deployments))
    sources = [source for answer in answers for source in answer]
    return await asyncio.to_thread(merge, sources)


async def _sources(deployment: ServeDeployment) -> list[Source]:
    try:
        return await deployment.broadcast("metrics_text", timeout_s=TIMEOUT_S)
    except LaneDown:
        return []
