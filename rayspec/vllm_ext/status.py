"""The answer of the `rayspec_status` RPC: plain types only, because vLLM serialises it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayspec.link.spec import LinkState
from rayspec.vllm_ext.counters import DraftCounters

__all__ = ["status"]


def status(
    *,
    state: LinkState | None,
    link: Mapping[str, Any] | None,
    counters: DraftCounters | None,
    live: int,
    k: int | None,
    errors: Mapping[str, int],
    disabled_reason: str | None,
) -> dict[str, Any]:
    """Gather one worker's figures; a worker without a link is "disabled"."""
    name = "disabled" if state is None else str(state)
    return {
        "state": name,
        "attached": name == "ready",
        "disabled_reason": disabled_reason,
        "link": None if link is None else {key: _plain(value) for key, value in link.items()},
        "live": live,
        "k": k,
        "steps": counters.steps if counters else 0,
        "drafted": counters.drafted if counters else 0,
        "accepted": counters.accepted if counters else 0,
        "drafted_per_pos": list(counters.drafted_per_pos) if counters else [],
        "accepted_per_pos": list(counters.accepted_per_pos) if counters else [],
        "errors": dict(errors),
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, LinkState) else value
