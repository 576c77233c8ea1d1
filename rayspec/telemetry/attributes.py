"""Attributes of spans: OpenTelemetry's `gen_ai.*` where they exist, `rayspec.*` for ours. Pure.

Times are in seconds. Texts of prompts and answers are in `content` alone, which nobody calls unless
the configuration says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rayspec.engine.messages import Generation
from rayspec.routing.types import Decision, Lane

__all__ = [
    "Attributes",
    "content_of_answer",
    "content_of_request",
    "of_decision",
    "of_generation",
    "of_request",
    "operation",
]

Attributes = dict[str, Any]

_OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion"}
_NUMBERS = {
    "gen_ai.request.max_tokens": ("max_completion_tokens", "max_tokens"),
    "gen_ai.request.temperature": ("temperature",),
    "gen_ai.request.top_p": ("top_p",),
    "gen_ai.request.top_k": ("top_k",),
    "gen_ai.request.seed": ("seed",),
    "gen_ai.request.frequency_penalty": ("frequency_penalty",),
    "gen_ai.request.presence_penalty": ("presence_penalty",),
    "gen_ai.request.choice.count": ("n",),
}


def operation(path: str) -> str | None:
    """Return `gen_ai.operation.name` of a path; None where nothing is generated."""
    return _OPERATIONS.get(path)


def of_request(path: str, body: Mapping[str, Any]) -> Attributes:
    """Return what a request asks for; of values that vLLM would refuse, nothing."""
    found: Attributes = {"gen_ai.provider.name": "rayspec"}
    if (name := operation(path)) is not None:
        found["gen_ai.operation.name"] = name
    if isinstance(model := body.get("model"), str):
        found["gen_ai.request.model"] = model
    if body.get("stream") is True:
        found["gen_ai.request.stream"] = True
    for attribute, fields in _NUMBERS.items():
        value = next((body[field] for field in fields if body.get(field) is not None), None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[attribute] = value
    return found


def of_decision(decision: Decision, loads: Mapping[Lane, int]) -> Attributes:
    """Return where a request goes, why, and the numbers that were looked at."""
    found: Attributes = {
        "rayspec.lane": str(decision.lane),
        "rayspec.workload_class": decision.workload_class,
        "rayspec.rule": decision.rule,
        "rayspec.reason": decision.reason,
        **{f"rayspec.load.{lane}": load for lane, load in loads.items()},
    }
    if decision.k is not None:
        found["rayspec.k"] = decision.k
    if (forecast := decision.forecast) is None:
        return found
    for lane, prediction in forecast.lanes.items():
        found[f"rayspec.predicted.{lane}.seconds"] = prediction.total_s
        found[f"rayspec.predicted.{lane}.k"] = prediction.k
    drafting = forecast.drafts_beside(decision.lane)
    if drafting is not None and drafting.best is not None:
        found["rayspec.believed_acceptance"] = drafting.acceptance
        found["rayspec.believed_acceptance.prior"] = drafting.assumed
        if drafting.breakeven is not None:
            found["rayspec.breakeven_acceptance"] = drafting.breakeven
    return found


def of_generation(generation: Generation) -> Attributes:
    """Return what a call generated, and what drafts did for it.

    `rayspec.draft.seconds` is an estimate: the steps times how long the draft took for one lately.
    """
    found: Attributes = {
        "gen_ai.usage.input_tokens": generation.prompt_tokens,
        "gen_ai.usage.output_tokens": generation.output_tokens,
        "gen_ai.response.finish_reasons": generation.finish_reasons,
        "rayspec.steps": generation.steps,
        "rayspec.drafted_tokens": generation.drafted,
        "rayspec.accepted_tokens": generation.accepted,
        "rayspec.acceptance": generation.acceptance,
        "rayspec.tokens_per_step": generation.tokens_per_step,
        "rayspec.time_to_first_token": generation.first_token_s,
        "rayspec.draft.step_seconds": generation.draft_step_s,
    }
    if generation.draft_step_s is not None:
        found["rayspec.draft.seconds"] = generation.steps * generation.draft_step_s
    return {name: value for name, value in found.items() if value is not None}


def content_of_request(body: Mapping[str, Any]) -> Attributes:
    """Return the prompt of a request, as `gen_ai.input.messages` in JSON."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": body.get("prompt")}]
    told = [_message(each) for each in messages if isinstance(each, Mapping)]
    return {"gen_ai.input.messages": json.dumps(told)}


def content_of_answer(texts: Iterable[tuple[str, str | None]]) -> Attributes:
    """Return an answer, given as text and finish reason of each choice."""
    told = [
        {**_message({"role": "assistant", "content": text}), "finish_reason": reason or ""}
        for text, reason in texts
    ]
    return {"gen_ai.output.messages": json.dumps(told)}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return {
        "role": message.get("role"),
        # Pictures and the like are named only: a span is no place for them.
        "parts": [
            {"type": part.get("type"), "content": part.get("text")}
            for part in parts
            if isinstance(part, Mapping)
        ],
    }
