"""The answer of the `rayspec_status` RPC: plain types only, because vLLM serialises it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rayspec.link.spec import LinkState, LinkStats

__all__ = ["DraftCounts", "ShardReport", "link_figures", "status"]

# What is a sum over the links; the rest of a link's figures is reported of the first one.
_SUMMED = (
    "sent",
    "received",
    "misses",
    "skipped",
    "stale",
    "resyncs",
    "deaths",
    "attaches",
    "attach_failures",
)


class DraftCounts(Protocol):
    """What was drafted and what of it was accepted."""

    steps: int
    drafted_per_pos: list[int]
    accepted_per_pos: list[int]


@dataclass(frozen=True, slots=True)
class ShardReport:
    """One link of a worker: its figures by name, live requests, and what was drafted over it."""

    state: LinkState
    link: Mapping[str, Any]
    live: int
    drafts: DraftCounts


def link_figures(stats: LinkStats, device: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return a link's figures in plain types.

    With `device` the exchange was counted there and not on the host, its times as means.
    """
    figures = {key: _plain(value) for key, value in asdict(stats).items()}
    if device is not None:
        answered = max(device["received"], 1)
        figures |= {key: device[key] for key in ("received", "misses", "skipped", "stale")}
        figures["lagging"] = bool(device["lagging"])
        figures["rtt_ewma_us"] = device["wait_ns"] / 1000 / answered
        figures["draft_ewma_us"] = device["draft_us"] / answered
        figures["wait_us"] = device["wait_ns"] // 1000
    return figures


def status(
    *,
    shards: Sequence[ShardReport],
    k: int | None,
    errors: Mapping[str, int],
    disabled_reason: str | None,
) -> dict[str, Any]:
    """Gather one worker's figures; a worker without a link is "disabled".

    With several links it is "ready" if any is, else in the state of the first. `shards` has the
    figures of each link, the other keys those of all together.
    """
    drafted = _histogram([shard.drafts.drafted_per_pos for shard in shards])
    accepted = _histogram([shard.drafts.accepted_per_pos for shard in shards])
    return {
        "state": _state([shard.state for shard in shards]),
        "attached": any(shard.state is LinkState.READY for shard in shards),
        "disabled_reason": disabled_reason,
        "link": _together([shard.link for shard in shards]),
        "live": sum(shard.live for shard in shards),
        "k": k,
        "steps": sum(shard.drafts.steps for shard in shards),
        "drafted": sum(drafted),
        "accepted": sum(accepted),
        "drafted_per_pos": drafted,
        "accepted_per_pos": accepted,
        "errors": dict(errors),
        "shards": [
            {
                "state": str(shard.state),
                "attached": shard.state is LinkState.READY,
                "link": dict(shard.link),
                "live": shard.live,
                "drafted": sum(shard.drafts.drafted_per_pos),
                "accepted": sum(shard.drafts.accepted_per_pos),
            }
            for shard in shards
        ],
    }


def _state(states: Sequence[LinkState]) -> str:
    if not states:
        return "disabled"
    return str(LinkState.READY if LinkState.READY in states else states[0])


def _together(links: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not links:
        return None
    return {**links[0], **{key: sum(link[key] for link in links) for key in _SUMMED}}


def _histogram(counts: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, LinkState) else value
