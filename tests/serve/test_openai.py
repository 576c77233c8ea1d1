"""What the official client gets, in both lanes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from rayspec.models.fetch import resolve
from tests.support.application import BASE_URL, Application

pytestmark = pytest.mark.e2e

LANES = {"on": "speculative", "off": "plain"}
FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]
# The answer repeats itself, so that prompt lookup has something to find.
REPEAT: Any = [{"role": "user", "content": "Count from one to five hundred in words."}]


def wish(speculation: str) -> dict[str, Any]:
    return {"rayspec": {"speculation": speculation}}


@pytest.mark.parametrize("speculation", LANES)
def test_chat(client: openai.OpenAI, speculation: str) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="smollm2", messages=FRANCE, temperature=0, extra_body=wish(speculation)
    )
    assert raw.headers["x-rayspec-lane"] == LANES[speculation]
    assert raw.headers["x-rayspec-class"] == "chat"
    assert raw.headers["x-rayspec-reason"] == f"override speculation={speculation}"
    assert raw.headers["x-request-id"]
    answer = raw.parse()
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_greedy_text_is_the_same_in_both_lanes(client: openai.OpenAI) -> None:
    texts, drafted = [], 0
    for speculation in LANES:
        answer = client.completions.create(
            model="smollm2",
            prompt="red green blue red green blue red green blue red",
            temperature=0,
            max_tokens=48,
            extra_body=wish(speculation) | {"ignore_eos": True},
        )
        texts.append(answer.choices[0].text)
        metrics = (answer.model_extra or {}).get("metrics") or {}
        drafted += (metrics.get("speculative_decoding") or {}).get("num_draft_tokens", 0)
    assert texts[0] == texts[1]
    assert drafted > 0


@pytest.mark.parametrize("speculation", LANES)
def test_stream_equals_whole_answer(client: openai.OpenAI, speculation: str) -> None:
    settings: Any = {
        "model": "smollm2",
        "messages": REPEAT,
        "temperature": 0,
        "max_tokens": 48,
        "extra_body": wish(speculation),
    }
    whole = client.chat.completions.create(**settings)
    chunks = list(
        client.chat.completions.create(
            **settings, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_completion_with_n_stop_seed_and_logprobs(client: openai.OpenAI) -> None:
    settings: Any = {
        "model": "smollm2",
        "prompt": "One, two, three,",
        "n": 2,
        "stop": [" ten"],
        "seed": 7,
        "temperature": 0.8,
        "max_tokens": 16,
        "logprobs": 2,
        "extra_body": wish("on"),
    }
    first, second = (client.completions.create(**settings) for _ in range(2))
    assert [c.text for c in first.choices] == [c.text for c in second.choices]
    assert len(first.choices) == 2
    logprobs = first.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or ()) == len(logprobs.token_logprobs or ())
    assert all(" ten" not in choice.text for choice in first.choices)


def test_several_prompts(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="smollm2", prompt=["A", "B", "C"], max_tokens=4, temperature=0
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


@pytest.mark.parametrize("speculation", LANES)
def test_json_schema(client: openai.OpenAI, speculation: str) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="smollm2",
        messages=FRANCE,
        temperature=0,
        max_tokens=64,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": schema, "strict": True},
        },
        extra_body=wish(speculation),
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city", "big"}


def test_constrained_requests_take_the_plain_lane(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="smollm2",
        messages=FRANCE,
        temperature=0,
        max_tokens=40,
        response_format={"type": "json_object"},
    )
    assert raw.headers["x-rayspec-lane"] == "plain"
    assert raw.headers["x-rayspec-class"] == "structured"
    assert raw.headers["x-rayspec-reason"].startswith("constrained")


def test_named_tool(client: openai.OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 16}},
        "required": ["city"],
    }
    # Only a strict tool has its arguments enforced.
    function = {"name": "weather", "parameters": parameters, "strict": True}
    settings: Any = {
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    }
    answer = client.chat.completions.create(
        model="smollm2", temperature=0, max_tokens=64, **settings
    )
    calls = answer.choices[0].message.tool_calls or []
    call: Any = calls[0]
    assert call.function.name == "weather"
    assert "city" in json.loads(call.function.arguments)


def test_models_tokenize_and_detokenize(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2"]
    body = {"model": "smollm2", "prompt": "Hello, world"}
    tokens = httpx.post(f"{BASE_URL}/tokenize", json=body, timeout=60).json()["tokens"]
    body = {"model": "smollm2", "tokens": tokens}
    text = httpx.post(f"{BASE_URL}/detokenize", json=body, timeout=60).json()["prompt"]
    assert text == "Hello, world"


def test_request_id_is_kept(app: Application) -> None:
    response = httpx.post(
        f"{BASE_URL}/v1/completions",
        json={"model": "smollm2", "prompt": "A", "max_tokens": 1},
        headers={"x-request-id": "my-request-7"},
        timeout=60,
    )
    assert response.headers.get_list("x-request-id") == ["my-request-7"]
    assert "my-request-7" in response.json()["id"]


def test_vllm_bench_serve(app: Application, tmp_path: Path) -> None:
    arguments = {
        "--backend": "openai-chat",
        "--base-url": BASE_URL,
        "--endpoint": "/v1/chat/completions",
        "--model": "smollm2",
        "--tokenizer": str(resolve("smollm2")),
        "--dataset-name": "random",
        "--random-input-len": "24",
        "--random-output-len": "12",
        "--num-prompts": "6",
        "--save-result": None,
        "--result-dir": str(tmp_path),
        "--result-filename": "result.json",
    }
    flat = [word for pair in arguments.items() for word in pair if word is not None]
    # What `vllm bench serve` runs; the command itself looks for a distribution named vllm, which
    # the CPU build is not.
    code = (
        "from vllm.benchmarks.serve import add_cli_args, main;"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser as Parser;"
        "parser = Parser(); add_cli_args(parser); main(parser.parse_args())"
    )
    command = [sys.executable, "-c", code, *flat]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["completed"] == 6
    assert result["total_output_tokens"] > 0
