from __future__ import annotations

import json
from dataclasses import asdict

from rayspec.link.spec import LinkSpec, LinkState
from rayspec.link.target import TargetLink
from rayspec.vllm_ext.counters import DraftCounters
from rayspec.vllm_ext.status import status


def test_plain_types_all_the_way_down() -> None:
    link = TargetLink(LinkSpec(slots=2, k_max=2, vocab_size=10, max_len=64, tokenizer_hash=""))
    counters = DraftCounters(2)
    answer = status(
        state=link.state,
        link=asdict(link.stats()),
        counters=counters,
        live=1,
        k=None,
        errors={"propose:ValueError": 2},
        disabled_reason=None,
    )
    assert json.loads(json.dumps(answer)) == answer
    assert type(answer["state"]) is str
    assert type(answer["link"]["state"]) is str
    assert answer["state"] == "detached"
    assert not answer["attached"]
    # A copy: the caller may keep it.
    counters.drafted_per_pos[0] += 1
    assert answer["drafted_per_pos"] == [0, 0]


def test_ready_is_attached_and_no_link_is_disabled() -> None:
    def state(state: LinkState | None) -> tuple[object, object]:
        answer = status(
            state=state,
            link=None,
            counters=None,
            live=0,
            k=2,
            errors={},
            disabled_reason="because",
        )
        return answer["state"], answer["attached"]

    assert state(LinkState.READY) == ("ready", True)
    assert state(None) == ("disabled", False)
