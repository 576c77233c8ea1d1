"""Health and metrics of the whole application."""

from __future__ import annotations

import re

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.application import BASE_URL, Application
from tests.support.metric_table import DOCUMENT, documented, labels_of, row

pytestmark = pytest.mark.e2e

# Metrics of applications that try a new draft, and of engines that draft themselves.
ELSEWHERE = ("rayspec_trial_", "rayspec_draft_method")


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


def test_a_scrape_has_the_documented_metrics(app: Application, client: openai.OpenAI) -> None:
    for speculation in ("on", "off"):
        client.completions.create(
            model="smollm2",
            prompt="one two three one two three one two",
            max_tokens=8,
            extra_headers={"x-rayspec-speculation": speculation},
        )
    text = httpx.get(f"{BASE_URL}/metrics", timeout=30).text
    families = {
        found.name: (family, found)
        for family in text_string_to_metric_families(text)
        for found in [row(family, ())]
        # When a series began is the client library's, for every counter and histogram.
        if found.name.startswith("rayspec_") and not found.name.endswith("_created")
    }
    table = {each.name: each for each in documented() if not each.name.startswith(ELSEWHERE)}
    assert families.keys() == table.keys()
    for name, (family, found) in families.items():
        assert (found.type, found.text) == (table[name].type, table[name].text)
        if family.samples:
            own = labels_of(family, without=("component", "replica"))
            # A target's series have its lane.
            assert set(own) - {"lane"} == set(table[name].labels) - {"lane"}, name
            assert set(table[name].labels) <= set(own), name
    documents = DOCUMENT.read_text()
    for name in re.findall(r"`(vllm:\w+)`", documents):
        assert name.removesuffix("_total") in {
            family.name for family in text_string_to_metric_families(text)
        }


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
