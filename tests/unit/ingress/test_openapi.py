from __future__ import annotations

import argparse
import json
import warnings
from functools import cache
from typing import Any

import jsonschema
import pytest

from rayspec.ingress.openapi import RELAYED, document
from rayspec.ingress.server import api


@cache
def vllm_document() -> dict[str, Any]:
    """What vLLM's own application says of itself, without an engine."""
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import FrontendArgs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = argparse.Namespace(**vars(FrontendArgs(disable_fastapi_docs=True)))
        return dict(build_app(args, ("generate",), None).openapi())


def described(**more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model": "m",
        "k_max": 4,
        "keys": False,
        "open_paths": ("/health", "/metrics"),
    }
    return document(vllm_document(), api.openapi(), **(settings | more))


def body(path: str, **more: Any) -> jsonschema.Draft202012Validator:
    found = described(**more)
    schema = found["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema.Draft202012Validator(schema | {"components": found["components"]})


def test_it_has_what_is_served_and_nothing_else() -> None:
    found = described()
    routes: list[Any] = list(api.routes)
    served = {route.path for route in routes} - {"/openapi.json", "/ui"}  # documents, no interface
    assert set(found["paths"]) == served
    assert set(RELAYED) < served
    assert "ChatCompletionRequest" in found["components"]["schemas"]
    assert len(found["components"]["schemas"]) < len(vllm_document()["components"]["schemas"])


def test_every_reference_leads_somewhere() -> None:
    found = described()
    text = json.dumps(found)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in found["components"]["schemas"]


@pytest.mark.parametrize(
    ("more", "valid"),
    [
        ({}, True),
        ({"model": "m"}, True),
        ({"model": "other"}, False),
        ({"rayspec": {"speculation": "off", "k": 4}}, True),
        ({"rayspec": {"k": 5}}, False),
        ({"rayspec": {"speed": 1}}, False),
        ({"metadata": {"workload_class": "code", "team": "x"}}, True),
        ({"metadata": {"workload_class": "Ä"}}, False),
        ({"temperature": "warm"}, False),
    ],
)
def test_requests_are_vllms_and_what_they_say_to_us(more: dict[str, Any], valid: bool) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}]} | more
    assert body("/v1/chat/completions").is_valid(chat) is valid
    assert body("/v1/completions").is_valid({"prompt": "Hi"} | more) is valid


def test_headers_and_refusals_are_told() -> None:
    chat = described()["paths"]["/v1/chat/completions"]["post"]
    names = {parameter["name"] for parameter in chat["parameters"]}
    assert names == {"x-rayspec-speculation", "x-workload-class"}
    assert {"401", "408", "413", "429", "503", "504"} < chat["responses"].keys()
    assert "422" not in chat["responses"]
    assert "x-rayspec-lane" in chat["responses"]["200"]["headers"]


def test_lanes_are_asked_for_by_name_where_that_is_possible() -> None:
    lanes = ("speculative", "alternative")
    found = described(lanes=lanes)
    chat = found["paths"]["/v1/chat/completions"]["post"]
    named = next(each for each in chat["parameters"] if each["name"] == "x-rayspec-lane")
    assert named["schema"]["enum"] == list(lanes)
    told = chat["responses"]["200"]["headers"]["x-rayspec-lane"]["description"]
    assert told == "The lane that answered: `speculative`, `alternative`."
    body_ = {"prompt": "Hi", "rayspec": {"lane": "alternative"}}
    assert body("/v1/completions", lanes=lanes).is_valid(body_)
    assert not body("/v1/completions").is_valid(body_)


def test_what_needs_a_key_says_so() -> None:
    assert "securitySchemes" not in described()["components"]
    found = described(keys=True)
    assert found["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
    assert "security" not in found["paths"]["/health"]["get"]


def test_vllms_document_is_left_as_it_was() -> None:
    before = json.dumps(vllm_document())
    described(keys=True)
    assert json.dumps(vllm_document()) == before
