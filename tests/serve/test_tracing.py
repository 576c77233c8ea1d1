"""Traces of real requests, as a collector outside the application receives them; and log lines."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

import httpx
import pytest

from tests.support.application import BASE_URL, Application
from tests.support.collector import Collector, Span, Trace

pytestmark = pytest.mark.e2e

CLIENT_SPAN = "00f067aa0ba902b7"
PATH = "/v1/chat/completions"
ROOT = f"POST {PATH}"
CALL = "chat smollm2"
VLLM = "llm_request"
# Words that are nowhere but in prompts; and the answer repeats them.
SECRET = "xylophone quartz"
UNSET, ERROR = 0, 2


def ask(trace_id: str, lane: str, request_id: str = "", **body: Any) -> httpx.Response:
    headers = {
        "traceparent": f"00-{trace_id}-{CLIENT_SPAN}-01",
        "x-rayspec-speculation": lane,
        "x-request-id": request_id or secrets.token_hex(8),
    }
    prompt = f"Repeat these words: {SECRET} {SECRET} {SECRET} {SECRET} {SECRET}"
    default = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 24,
        "temperature": 0,
    }
    return httpx.post(BASE_URL + PATH, headers=headers, json={**default, **body}, timeout=120)


def check_tree(trace: Trace) -> None:
    """Check that there is one tree, from the client's span down to vLLM's."""
    (top,) = trace.roots()
    assert top.parent_id == CLIENT_SPAN, trace
    assert top.name.startswith("proxy_http_request"), trace
    root, call = trace.named(ROOT), trace.named(CALL)
    engine, vllm = trace.named("rayspec.engine"), trace.named(VLLM)
    assert top in trace.ancestors(root), trace
    for route in trace.all_named("rayspec.route"):
        assert route.parent_id == root.span_id, trace
    assert call.parent_id == root.span_id, trace
    assert call in trace.ancestors(engine), trace
    assert vllm.parent_id == engine.span_id, trace


@pytest.mark.parametrize(("lane", "stream"), [("on", False), ("off", True), ("on", True)])
def test_one_tree_from_the_client_to_the_engine(
    app: Application, collector: Collector, lane: str, stream: bool
) -> None:
    trace_id = secrets.token_hex(16)
    assert ask(trace_id, lane, stream=stream).status_code == 200
    names = ("rayspec.route", ROOT, CALL, "rayspec.engine", VLLM)
    trace = collector.trace(trace_id, *names, under=CLIENT_SPAN)
    check_tree(trace)

    name = "speculative" if lane == "on" else "plain"
    route = trace.named("rayspec.route").attributes
    assert route["rayspec.lane"] == name
    assert route["rayspec.rule"] == "override"
    assert {"rayspec.load.speculative", "rayspec.load.plain", "rayspec.reason"} <= route.keys()
    for span in (trace.named(ROOT), trace.named(CALL), trace.named("rayspec.engine")):
        found = span.attributes
        assert span.status == UNSET
        assert found["http.response.status_code"] == 200
        assert found["rayspec.lane"] == name
        assert 0 < found["gen_ai.usage.output_tokens"] <= 24
        assert found["gen_ai.response.finish_reasons"] in (["stop"], ["length"])
        assert found["rayspec.time_to_first_token"] > 0
        if lane == "on":
            # The prompt repeats itself, so that the draft finds something to propose.
            assert found["rayspec.steps"] > 0
            drafted, accepted = found["rayspec.drafted_tokens"], found["rayspec.accepted_tokens"]
            assert drafted > 0
            assert found["rayspec.acceptance"] == accepted / drafted
            assert found["rayspec.draft.seconds"] > 0
        else:
            assert "rayspec.acceptance" not in found
    assert trace.named(CALL).attributes["gen_ai.response.time_to_first_chunk"] > 0


def test_predictions_are_in_the_decision(app: Application, collector: Collector) -> None:
    # Both lanes have taken steps in the tests above, or take some now.
    for lane in ("on", "off"):
        ask(secrets.token_hex(16), lane)
    trace_id = secrets.token_hex(16)
    ask(trace_id, "auto")
    route = collector.trace(trace_id, "rayspec.route").named("rayspec.route").attributes
    assert route["rayspec.predicted.speculative.seconds"] > 0
    assert route["rayspec.predicted.plain.seconds"] > 0


def test_a_request_without_a_trace_begins_one(app: Application, collector: Collector) -> None:
    request_id = secrets.token_hex(8)
    body = {"model": "smollm2", "prompt": "A", "max_tokens": 2}
    headers = {"x-request-id": request_id}
    httpx.post(f"{BASE_URL}/v1/completions", json=body, headers=headers, timeout=60)

    def mine() -> list[Span]:
        return [
            s for s in collector.spans() if s.attributes.get("rayspec.request_id") == request_id
        ]

    app.wait_for(mine, 20)
    (root,) = mine()
    names = ("rayspec.engine", VLLM, "text_completion smollm2")
    trace = collector.trace(root.trace_id, *names, under="")
    assert len(trace.roots()) == 1


def test_a_client_that_leaves_is_an_error_in_every_part(
    app: Application, collector: Collector
) -> None:
    trace_id = secrets.token_hex(16)
    body = {
        "model": "smollm2",
        "prompt": "Once",
        "max_tokens": 1000,
        "stream": True,
        "ignore_eos": True,
    }
    headers = {"traceparent": f"00-{trace_id}-{CLIENT_SPAN}-01"}
    url = f"{BASE_URL}/v1/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as response:
        next(response.iter_bytes())
    call = "text_completion smollm2"
    trace = collector.trace(trace_id, "POST /v1/completions", call, "rayspec.engine")
    for name in ("POST /v1/completions", call, "rayspec.engine"):
        span = trace.named(name)
        assert (span.status, span.attributes["error.type"]) == (ERROR, "disconnected"), trace


def test_a_request_that_vllm_refuses_is_the_clients_matter(
    app: Application, collector: Collector
) -> None:
    trace_id = secrets.token_hex(16)
    assert ask(trace_id, "off", model="nobody").status_code == 404
    trace = collector.trace(trace_id, ROOT, "chat nobody", "rayspec.engine")
    assert trace.named(ROOT).attributes["http.response.status_code"] == 404
    assert trace.named(ROOT).status == UNSET
    assert trace.named("chat nobody").status == ERROR


def test_texts_are_in_no_trace(app: Application, collector: Collector) -> None:
    trace_id = secrets.token_hex(16)
    ask(trace_id, "on")
    collector.trace(trace_id, ROOT, CALL, "rayspec.engine", VLLM)
    assert not [span for span in collector.spans() if "xylophone" in str(span)]
    assert {span.resource["service.name"] for span in collector.spans()} == {"rayspec"}


def test_polls_and_scrapes_are_in_no_trace(app: Application, collector: Collector) -> None:
    app.metric("rayspec_source_up")  # and the lanes are polled once a second
    trace_id = secrets.token_hex(16)
    ask(trace_id, "off")
    collector.trace(trace_id, ROOT, CALL, "rayspec.engine", VLLM)
    names = {span.name for span in collector.spans()}
    assert not {name for name in names if re.search("health|metrics|snapshot|holds|attach", name)}


def test_a_request_leaves_a_line_in_ingress_and_replica(app: Application) -> None:
    trace_id, request_id = secrets.token_hex(16), secrets.token_hex(8)
    assert ask(trace_id, "on", request_id).headers["x-request-id"] == request_id

    def mine() -> list[dict[str, Any]]:
        printed = re.findall(r"\{.*\}", app.printed())
        found = [json.loads(line) for line in printed if request_id in line]
        return [line for line in found if "output_tokens" in line]

    app.wait_for(lambda: len(mine()) == 2, 20)
    lines = {line["deployment"]: line for line in mine()}
    assert set(lines) == {"rayspec_Ingress", "rayspec_SpeculativeTarget"}
    for line in lines.values():
        assert (line["request_id"], line["trace_id"]) == (request_id, trace_id)
        assert (line["lane"], line["ended"]) == ("speculative", "whole")
        assert line["output_tokens"] > 0
    told = lines["rayspec_Ingress"]
    assert {"workload_class", "reason", "ttft_s", "e2e_s", "acceptance", "status"} <= told.keys()
    assert "xylophone" not in str(lines)
