from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rayspec.draft.spec import DraftStats, RoundStats
from rayspec.telemetry.draft import DraftCollector


def values(stats: DraftStats) -> dict[str, float]:
    """Every sample by its name and label."""
    registry = CollectorRegistry()
    registry.register(DraftCollector(lambda: stats))
    text = generate_latest(registry).decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {
        "".join((s.name, *(f"/{label}" for label in s.labels.values()))): s.value for s in samples
    }


def test_every_statistic_is_exported_once_under_its_name() -> None:
    rounds = RoundStats(**{field.name: 100 + at for at, field in enumerate(fields(RoundStats))})
    own = [field.name for field in fields(DraftStats) if field.name != "on_device"]
    stats = DraftStats(**{name: at for at, name in enumerate(own)}, on_device=rounds)

    exported = values(stats)

    assert sorted(exported.values()) == sorted([*range(len(own)), *asdict(rounds).values()])
    assert exported["rayspec_draft_server_rounds_total"] == stats.rounds
    assert exported["rayspec_draft_device_round_us/p99"] == rounds.round_p99_us
    assert exported["rayspec_draft_device_step_us/recent"] == rounds.step_ewma_us
    assert exported["rayspec_draft_device_launch_us/p50"] == rounds.launch_p50_us
    assert exported["rayspec_draft_device_rows_not_ready_total"] == rounds.rows_not_ready
    assert exported["rayspec_draft_device_prefill_pieces_total"] == rounds.prefill_pieces
    assert exported["rayspec_draft_device_blocks_used"] == rounds.blocks_used
    assert exported["rayspec_draft_device_blocks_total"] == rounds.blocks_total


def test_a_draft_on_the_host_exports_the_same_names() -> None:
    zeros: dict[str, Any] = {f.name: 0 for f in fields(DraftStats) if f.name != "on_device"}
    assert len(values(DraftStats(**zeros))) == len(zeros) + len(fields(RoundStats))
