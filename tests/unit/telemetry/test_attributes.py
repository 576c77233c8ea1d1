from __future__ import annotations

import json
from typing import Any

from rayspec.engine.messages import Generation
from rayspec.routing.cost_model import Prediction
from rayspec.routing.types import Decision, Lane
from rayspec.telemetry import attributes
from tests.support.one_draft import predicted

S, P = Lane.SPECULATIVE, Lane.PLAIN
BODY: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "secret"},
        {"role": "user", "content": [{"type": "text", "text": "hidden"}, {"type": "image_url"}]},
    ],
    "max_tokens": 7,
    "temperature": 0,
    "seed": True,
    "top_p": "wrong",
    "stream": True,
}


def test_a_request_is_told_without_its_texts() -> None:
    told = attributes.of_request("/v1/chat/completions", BODY)

    assert told == {
        "gen_ai.provider.name": "rayspec",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.temperature": 0,
        "gen_ai.request.stream": True,
    }
    assert "gen_ai.operation.name" not in attributes.of_request("/tokenize", {"prompt": "x"})


def test_a_decision_tells_what_it_looked_at() -> None:
    lanes = {S: Prediction(0.1, 0.01, 0.812, 3), P: Prediction(0.1, 0.01, 0.955, 0)}
    forecast = predicted(lanes, lanes[S], acceptance=0.71, breakeven=0.44)
    told = attributes.of_decision(
        Decision(S, "chat", "faster speculative 1 s", 3, forecast), {S: 2, P: 5}
    )

    assert told == {
        "rayspec.lane": "speculative",
        "rayspec.workload_class": "chat",
        "rayspec.rule": "faster",
        "rayspec.reason": "faster speculative 1 s",
        "rayspec.k": 3,
        "rayspec.load.speculative": 2,
        "rayspec.load.plain": 5,
        "rayspec.predicted.speculative.seconds": 0.812,
        "rayspec.predicted.speculative.k": 3,
        "rayspec.predicted.plain.seconds": 0.955,
        "rayspec.predicted.plain.k": 0,
        "rayspec.believed_acceptance": 0.71,
        "rayspec.believed_acceptance.prior": False,
        "rayspec.breakeven_acceptance": 0.44,
    }


def test_a_generation_without_drafts_tells_of_none() -> None:
    told = attributes.of_generation(Generation(3, 9, finish_reasons=("stop",)))
    assert "rayspec.acceptance" not in told
    assert "rayspec.draft.seconds" not in told

    told = attributes.of_generation(Generation(3, 9, 4, 10, 5, draft_step_s=0.01))
    assert told["rayspec.acceptance"] == 0.5
    assert told["rayspec.tokens_per_step"] == 2.25
    assert told["rayspec.draft.seconds"] == 0.04


def test_texts_are_messages() -> None:
    asked = json.loads(attributes.content_of_request(BODY)["gen_ai.input.messages"])
    assert asked == [
        {"role": "system", "parts": [{"type": "text", "content": "secret"}]},
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "hidden"},
                {"type": "image_url", "content": None},
            ],
        },
    ]
    (got,) = json.loads(attributes.content_of_answer([("yes", "stop")])["gen_ai.output.messages"])
    assert got == {
        "role": "assistant",
        "parts": [{"type": "text", "content": "yes"}],
        "finish_reason": "stop",
    }
