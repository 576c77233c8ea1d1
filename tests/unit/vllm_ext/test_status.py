from __future__ import annotations

import json
from typing import Any

from rayspec.link.spec import LinkSpec, LinkState
from rayspec.link.target import TargetLink
from rayspec.vllm_ext.counters import DraftCounters
from rayspec.vllm_ext.status import ShardReport, link_figures, status

LINK = TargetLink(LinkSpec(slots=2, k_max=2, vocab_size=10, max_len=64, tokenizer_hash=""))


def report(state: LinkState, drafted: int = 0, **link: int) -> ShardReport:
    counters = DraftCounters(2)
    counters.drafted_per_pos[0] = drafted
    return ShardReport(state, link_figures(LINK.stats()) | link, 1, counters)


def answer(*shards: ShardReport) -> dict[str, Any]:
    return status(shards=shards, k=2, errors={"propose:ValueError": 2}, disabled_reason=None)


def test_plain_types_all_the_way_down() -> None:
    shard = report(LINK.state)
    got = answer(shard)
    assert json.loads(json.dumps(got)) == got
    assert type(got["state"]) is str
    assert type(got["link"]["state"]) is str
    assert got["state"] == "detached"
    assert not got["attached"]
    # A copy: the caller may keep it.
    shard.drafts.drafted_per_pos[0] += 1
    assert got["drafted_per_pos"] == [0, 0]


def test_ready_is_attached_and_no_link_is_disabled() -> None:
    got = answer(report(LinkState.READY))
    assert (got["state"], got["attached"]) == ("ready", True)
    got = answer()
    assert (got["state"], got["attached"], got["link"]) == ("disabled", False, None)


def test_several_links_are_added_up() -> None:
    got = answer(report(LinkState.REFUSED, 3, sent=5), report(LinkState.READY, 4, sent=7))
    assert (got["state"], got["attached"], got["live"]) == ("ready", True, 2)
    assert got["drafted_per_pos"] == [7, 0]
    assert got["link"]["sent"] == 12
    assert [(s["state"], s["drafted"], s["link"]["sent"]) for s in got["shards"]] == [
        ("refused", 3, 5),
        ("ready", 4, 7),
    ]


def test_what_the_device_counted_replaces_what_the_host_could_not() -> None:
    device = {"received": 4, "misses": 1, "skipped": 2, "stale": 3, "lagging": 1}
    figures = link_figures(LINK.stats(), device | {"wait_ns": 800_000, "draft_us": 400})
    assert figures["received"] == 4
    assert figures["lagging"] is True
    assert figures["rtt_ewma_us"] == 200
    assert figures["draft_ewma_us"] == 100
    assert figures["wait_us"] == 800
