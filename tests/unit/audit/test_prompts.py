"""Prompt files and the bodies made of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rayspec.audit.prompts import CHAT, COMPLETIONS, built_in, read, to_sample
from rayspec.errors import ConfigError
from rayspec.ingress.classify import BUILTIN_CLASSES
from rayspec.routing.types import Lane


def written(tmp_path: Path, *rows: Any) -> Path:
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return file


def test_built_in_set_has_several_of_every_class() -> None:
    classes = Counter(prompt.workload_class for prompt in built_in())
    assert set(classes) == set(BUILTIN_CLASSES)
    assert min(classes.values()) >= 3
    assert len({prompt.preview for prompt in built_in()}) == len(built_in())
    assert len(to_sample(built_in(), 9)) == 3
    assert len(built_in(4)) == 4


def test_the_three_kinds_of_lines(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hello?"}]
    file = written(
        tmp_path,
        {"class": "code", "prompt": "def f("},
        "",
        {"messages": messages, "temperature": 0.3, "class": "own-class", "sampled": True},
        {"prompt": "Once", "max_tokens": 9},
        {"prompt": [1, 2, 3]},
    )
    code, chat, text, tokens = read(file)
    assert (code.path, code.workload_class) == (CHAT, "code")
    assert code.body == {"messages": [{"role": "user", "content": "def f("}]}
    assert (chat.path, chat.workload_class, chat.sampled) == (CHAT, "own-class", True)
    assert chat.body == {"messages": messages, "temperature": 0.3}
    assert (text.path, text.workload_class, text.preview) == (COMPLETIONS, None, "Once")
    assert tokens.path == COMPLETIONS
    assert [prompt.number for prompt in (code, chat, text, tokens)] == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 1 = '{': not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"class": "Code!", "prompt": "x"}', "line 1 class = 'Code!'"),
        ('{"class": "code"}', 'needs "messages"'),
        ('{"prompt": ["a", "b"]}', "needs"),
        ('{"prompt": [true]}', "needs"),
        ('{"messages": []}', "must be a list of messages"),
        ("", "has no requests"),
    ],
)
def test_what_is_no_request_is_named(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(written(tmp_path, line))
    assert told in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.jsonl")


def test_payload_asks_one_lane_and_keeps_the_rest(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "Hi"}],
        "model": "theirs",
        "max_completion_tokens": 10,
        "n": 4,
        "logprobs": True,
        "top_logprobs": 2,
        "top_p": 0.9,
        "rayspec": {"k": 2, "speculation": "auto"},
    }
    (prompt,) = read(written(tmp_path, row))
    body = prompt.payload(Lane.PLAIN, ["ours"], 64, temperature=0, seed=5)
    assert body["rayspec"] == {"k": 2, "speculation": "off"}
    assert (body["model"], body["max_tokens"], body["n"], body["top_p"]) == ("ours", 10, 1, 0.9)
    assert (body["temperature"], body["seed"]) == (0, 5)
    assert not body.keys() & {"logprobs", "top_logprobs", "max_completion_tokens"}
    other = prompt.payload(Lane.SPECULATIVE, ["ours", "theirs"], 4)
    assert (other["model"], other["max_tokens"]) == ("theirs", 4)
    assert other["rayspec"]["speculation"] == "on"


@pytest.mark.parametrize(
    ("more", "reshaped"),
    [
        ({}, None),
        ({"presence_penalty": 0, "repetition_penalty": 1.0, "logit_bias": {}}, None),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"logit_bias": {"5": 3}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_what_changes_logits_is_known(
    tmp_path: Path, more: dict[str, Any], reshaped: str | None
) -> None:
    (prompt,) = read(written(tmp_path, {"prompt": "x", **more}))
    assert (prompt.reshaped or "").startswith(reshaped or "")
    assert (prompt.reshaped is None) == (reshaped is None)


def test_without_marks_the_first_of_each_class_is_sampled(tmp_path: Path) -> None:
    names = ("code", "code", "chat", "chat", "creative")
    prompts = read(written(tmp_path, *({"class": n, "prompt": "x"} for n in names)))
    assert [prompt.number for prompt in to_sample(prompts, 2)] == [1, 3]
