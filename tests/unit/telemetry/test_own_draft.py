from __future__ import annotations

from prometheus_client import CollectorRegistry

from rayspec.telemetry.own_draft import OwnDraftCollector


def test_an_engine_that_drafts_itself_is_measured_like_one_with_a_draft() -> None:
    registry = CollectorRegistry()
    registry.register(OwnDraftCollector("eagle3", lambda: ((8, 4), (6, 1))))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"rayspec_{name}", labels)

    assert value("draft_attached") == 1
    assert value("draft_method", method="eagle3") == 1
    assert value("position_drafted_tokens_total", position="0") == 8
    assert value("position_accepted_tokens_total", position="1") == 1
    assert value("link_sent_total") is None
