"""Health and metrics of the whole application."""

from __future__ import annotations

import openai
import pytest

from tests.support.application import Application

pytestmark = pytest.mark.e2e


def test_health_names_both_lanes(app: Application) -> None:
    lanes = app.health()
    assert lanes is not None
    assert lanes["speculative"]["replicas"] == lanes["plain"]["replicas"] == 1
    assert lanes["speculative"]["draft_attached"] is True


def test_one_scrape_has_everything(app: Application, client: openai.OpenAI) -> None:
    client.completions.create(model="smollm2", prompt="A", max_tokens=2)
    samples = list(app.metrics())
    up = [s.labels for s in samples if s.name == "rayspec_source_up" and s.value == 1]
    assert {labels["component"] for labels in up} == {"ingress", "target", "draft"}
    lanes = {s.labels["lane"] for s in samples if s.name == "vllm:num_requests_running"}
    assert lanes == {"speculative", "plain"}
    names = {sample.name for sample in samples}
    assert {
        "rayspec_requests_total",
        "rayspec_decisions_total",
        "rayspec_draft_attached",
        "rayspec_link_rtt_p50_us",
        "rayspec_draft_server_rounds_total",
        "vllm:generation_tokens_total",
    } <= names


def test_counters_follow_the_requests(app: Application, client: openai.OpenAI) -> None:
    labels = {"lane": "plain", "workload_class": "billing", "status": "200"}
    before = app.metric("rayspec_requests_total", **labels)
    client.completions.create(
        model="smollm2",
        prompt="A",
        max_tokens=2,
        extra_headers={"x-workload-class": "billing", "x-rayspec-speculation": "off"},
    )
    assert app.metric("rayspec_requests_total", **labels) == before + 1
