from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rayspec.errors import BadRequest, to_openai
from rayspec.ingress.classify import ClassRule
from rayspec.ingress.request import ParsedRequest, lower_names, parse_request
from rayspec.routing.names import CANDIDATE, DRAFT_ARG, K_ARG
from rayspec.routing.types import Decision, Lane, RequestView, Speculation
from tests.support.classified import TOOL, Body, chat, prompt


def parse(body: Any, headers: dict[str, str] | None = None, **settings: Any) -> ParsedRequest:
    return parse_request(headers or {}, json.dumps(body).encode(), **settings)


def unsized(parsed: ParsedRequest) -> RequestView:
    assert parsed.view.body_bytes > 0
    return replace(parsed.view, body_bytes=0)


def decision(k: int | None) -> Decision:
    return Decision(Lane.SPECULATIVE, "chat", "default", k)


def test_an_ordinary_request_is_passed_on_byte_for_byte() -> None:
    raw = (
        b'{ "model":"m", "messages":[{"role":"user",'
        b'"content":"is a caf\\u00e9 a caf\xc3\xa9?"}], "n":1 }'
    )

    parsed = parse_request({}, raw)

    assert unsized(parsed) == RequestView("chat")
    assert parsed.body == raw
    assert parsed.body_for(decision(None)) == raw


def test_rayspec_is_read_and_taken_out() -> None:
    parsed = parse(chat("hi", rayspec={"speculation": "off", "k": 3}, seed=7))

    assert unsized(parsed) == RequestView("chat", Speculation.OFF, k=3)
    assert json.loads(parsed.body) == chat("hi", seed=7)


@pytest.mark.parametrize("own", [None, {}, {"speculation": None, "k": None}])
def test_nothing_asked_is_auto(own: Any) -> None:
    parsed = parse(chat("hi", rayspec=own))

    assert unsized(parsed) == RequestView("chat")
    assert json.loads(parsed.body) == chat("hi")


def test_headers_go_before_the_body_in_any_case() -> None:
    body = chat("hi", rayspec={"speculation": "on"}, metadata={"workload_class": "theirs"})
    headers = {"X-Rayspec-Speculation": "off", "X-Workload-Class": "mine"}

    parsed = parse(body, headers)

    assert unsized(parsed) == RequestView("mine", Speculation.OFF)
    assert parsed.classification.why == "x-workload-class"
    assert json.loads(parsed.body)["metadata"] == {"workload_class": "theirs"}


def test_rules_apply() -> None:
    rules = [ClassRule("greeting", prompt_pattern="^hi")]

    assert parse(chat("hi"), rules=rules).view.workload_class == "greeting"


def test_the_first_of_repeated_headers_counts() -> None:
    assert lower_names([("X-A", "1"), ("x-a", "2"), ("B", "3")]) == {"x-a": "1", "b": "3"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"rayspec": []}, "rayspec"),
        ({"rayspec": "on"}, "rayspec"),
        ({"rayspec": {"speculate": "on"}}, "rayspec.speculate"),
        ({"rayspec": {"speculation": "yes"}}, "rayspec.speculation"),
        ({"rayspec": {"speculation": True}}, "rayspec.speculation"),
        ({"rayspec": {"speculation": ["on"]}}, "rayspec.speculation"),
        ({"rayspec": {"k": -1}}, "rayspec.k"),
        ({"rayspec": {"k": 6}}, "rayspec.k"),
        ({"rayspec": {"k": 2.0}}, "rayspec.k"),
        ({"rayspec": {"k": True}}, "rayspec.k"),
        ({"rayspec": {"k": "2"}}, "rayspec.k"),
        ({"metadata": {"workload_class": "No!"}}, "metadata.workload_class"),
        ({"vllm_xargs": {"rayspec.k": 2}}, "vllm_xargs.rayspec.k"),
    ],
)
def test_a_wrong_value_is_a_400_that_names_it(fields: Body, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(chat("hi", **fields), k_max=5)

    error = to_openai(refused.value)["error"]
    assert refused.value.status == 400
    assert error["param"] == param
    assert param in error["message"]


def test_a_name_that_no_answer_could_carry_is_made_safe() -> None:
    with pytest.raises(BadRequest) as refused:
        parse_request({}, rb'{"rayspec": {"\ud800\n": 1}}')

    assert refused.value.param == "rayspec.?"


def test_a_wrong_header_is_named() -> None:
    with pytest.raises(BadRequest) as refused:
        parse(chat("hi"), {"X-Rayspec-Speculation": "maybe"})

    assert refused.value.param == "x-rayspec-speculation"
    assert refused.value.message == 'x-rayspec-speculation must be "on", "off" or "auto"'


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"hi"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"prompt": "\xff"}', "not UTF-8 at byte 12"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_json_object_is_a_400(raw: bytes, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem):
        parse_request({}, raw)


@pytest.mark.parametrize(
    ("fields", "constrained"),
    [
        ({}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, True),
        ({"response_format": {"type": "structural_tag", "format": {}}}, True),
        ({"response_format": {"type": ["json_object"]}}, False),
        ({"structured_outputs": {"regex": "a+"}}, True),
        ({"structured_outputs": {"choice": ["a", "b"]}}, True),
        ({"structured_outputs": {"json": None}}, False),
        ({"guided_json": {}}, False),
        ({"tools": [TOOL]}, False),
        ({"tools": [TOOL], "tool_choice": "auto"}, False),
        ({"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False}, False),
        ({"tools": [TOOL], "tool_choice": "required"}, True),
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "get_weather"}}}, True),
        ({"tools": [TOOL], "parallel_tool_calls": False}, True),
        ({"tools": [{"function": {"name": "f", "strict": True}}]}, True),
        ({"tool_choice": "required"}, False),
        ({"tools": "x", "tool_choice": "required"}, False),
    ],
)
def test_constrained_generation_is_recognised(fields: Body, constrained: bool) -> None:
    assert parse(chat("hi", **fields)).view.constrained is constrained


@pytest.mark.parametrize(
    ("body", "sequences"),
    [
        (chat("hi"), 1),
        (chat("hi", n=4), 4),
        (chat("hi", n=0), 1),
        (chat("hi", n="4"), 1),
        (prompt(["a", "b", "c"], n=2), 6),
        (prompt([1, 2, 3]), 1),
        (prompt([[1, 2], [3]]), 2),
        (prompt([]), 1),
        (chat("hi", n=10**9), 1 << 20),
    ],
)
def test_sequences_are_counted(body: Body, sequences: int) -> None:
    assert parse(body).view.sequences == sequences


def test_the_decided_k_travels_flat_among_the_xargs() -> None:
    parsed = parse(chat("hi", rayspec={"k": 2}, vllm_xargs={"mine": "x"}))

    assert json.loads(parsed.body_for(decision(2)))["vllm_xargs"] == {"mine": "x", "rayspec.k": 2}
    assert json.loads(parsed.body_for(decision(0)))["vllm_xargs"]["rayspec.k"] == 0
    assert json.loads(parsed.body_for(decision(None)))["vllm_xargs"] == {"mine": "x"}
    assert json.loads(parsed.body)["vllm_xargs"] == {"mine": "x"}


def test_a_new_draft_is_named_among_them_and_by_nobody_else() -> None:
    parsed = parse(chat("hi", vllm_xargs={"a": 1}))
    named = replace(decision(2), draft=CANDIDATE)
    body = json.loads(parsed.body_for(named))
    assert body["vllm_xargs"] == {"a": 1, K_ARG: 2, DRAFT_ARG: CANDIDATE}
    body = json.loads(parsed.body_for(replace(named, k=None)))
    assert body["vllm_xargs"] == {"a": 1, DRAFT_ARG: CANDIDATE}
    with pytest.raises(BadRequest, match="reserved"):
        parse(chat("hi", vllm_xargs={DRAFT_ARG: CANDIDATE}))


def test_malformed_xargs_are_left_for_vllm_to_refuse() -> None:
    parsed = parse(chat("hi", vllm_xargs=[1]))

    assert json.loads(parsed.body_for(decision(3)))["vllm_xargs"] == [1]


def test_what_json_can_carry_survives_encoding() -> None:
    raw = rb'{"prompt": "\ud83d\ude00 \ud800 \u0000", "rayspec": {}, "x": 1e400}'

    assert json.loads(parse_request({}, raw).body) == {
        "prompt": "😀 \ud800 \0",
        "x": float("inf"),
    }


LANES = tuple(Lane)


@pytest.mark.parametrize(
    ("headers", "own", "lane"),
    [
        ({}, {}, None),
        ({}, {"lane": "alternative"}, Lane.ALTERNATIVE),
        ({"X-Rayspec-Lane": "plain"}, {"lane": "alternative"}, Lane.PLAIN),
        ({"x-rayspec-lane": "speculative"}, {"k": 2}, Lane.SPECULATIVE),
    ],
)
def test_a_lane_is_asked_for_by_name(
    headers: dict[str, str], own: dict[str, Any], lane: Lane | None
) -> None:
    assert parse(chat("hi", rayspec=own), headers, lanes=LANES).view.lane is lane


@pytest.mark.parametrize("value", ["other", 1, ["plain"], {}])
def test_a_lane_that_is_not_there_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="must be one of speculative, alternative, plain"):
        parse(chat("hi", rayspec={"lane": value}), lanes=LANES)
    with pytest.raises(BadRequest, match="x-rayspec-lane must be one of speculative, alternative"):
        parse(chat("hi"), {"x-rayspec-lane": "plain"}, lanes=LANES[:2])


def test_where_one_lane_drafts_none_is_asked_for_by_name() -> None:
    assert parse(chat("hi"), {"x-rayspec-lane": "anything"}).view.lane is None
    with pytest.raises(BadRequest, match="unknown: rayspec has speculation and k"):
        parse(chat("hi", rayspec={"lane": "plain"}))
    with pytest.raises(BadRequest, match="unknown: rayspec has speculation, k and lane"):
        parse(chat("hi", rayspec={"lanes": "plain"}), lanes=LANES)
