"""The requests that are asked of both lanes: a file of the user's, or the set that ships here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rayspec.errors import ConfigError
from rayspec.ingress.constrained import constraint
from rayspec.routing.types import Lane, valid_class_name

__all__ = ["COMPARED", "Prompt", "built_in", "read", "to_sample"]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

COMPARED = (Lane.SPECULATIVE, Lane.PLAIN)
"""The lanes whose answers have to be the same."""
_WISH = {Lane.SPECULATIVE: "on", Lane.PLAIN: "off"}
# Ours to set, or of no use where only tokens are compared.
_DROPPED = (
    "best_of",
    "echo",
    "logprobs",
    "max_completion_tokens",
    "prompt_logprobs",
    "top_logprobs",
    "use_beam_search",
)
# With these the engine decides on other numbers than the log-probabilities it reports.
_RESHAPING = (
    "allowed_token_ids",
    "bad_words",
    "frequency_penalty",
    "logit_bias",
    "min_tokens",
    "presence_penalty",
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: where it goes, its body, and its class where the file names one.

    `sampled` marks it for the test of sampled answers.
    """

    number: int
    path: str
    body: Mapping[str, Any]
    workload_class: str | None = None
    sampled: bool = False

    @property
    def reshaped(self) -> str | None:
        """What in the request changes logits before a token is chosen; None if nothing does."""
        if (enforced := constraint(self.body)) is not None:
            return enforced
        neutral: tuple[Any, ...] = (None, 0, [], {})
        if self.body.get("repetition_penalty", 1) not in (None, 1):
            return "repetition_penalty"
        return next((key for key in _RESHAPING if self.body.get(key) not in neutral), None)

    @property
    def preview(self) -> str:
        """The beginning of what is asked, on one line."""
        messages = self.body.get("messages")
        asked = messages[-1].get("content") if messages else self.body["prompt"]
        return " ".join(str(asked).split())[:120]

    def payload(
        self, lane: Lane, models: Sequence[str], max_tokens: int, **settings: Any
    ) -> dict[str, Any]:
        """Return the body that asks `lane` for one streamed answer with its token ids."""
        body = {key: value for key, value in self.body.items() if key not in _DROPPED}
        own = [self.body.get("max_completion_tokens"), self.body.get("max_tokens"), max_tokens]
        model = body.get("model")
        return body | {
            "model": model if model in models else models[0],
            "max_tokens": min(limit for limit in own if limit is not None),
            "n": 1,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "rayspec": {**(body.get("rayspec") or {}), "speculation": _WISH[lane]},
            **settings,
        }


def read(file: Path, limit: int | None = None) -> list[Prompt]:
    """Read a JSONL file; raises `ConfigError` naming the first line that is not a request.

    A line is `{"class": …, "prompt": …}`, or the body of a chat completion (`messages`) or of a
    completion (`prompt` without `class`). `"sampled": true` marks either for sampling.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("--prompts", str(file), f"cannot be read: {error}") from None
    return _parse(text, file.name, limit)


def built_in(limit: int | None = None) -> list[Prompt]:
    """Return the set that ships with rayspec: a few requests of every built-in class."""
    file = resources.files("rayspec.audit") / "prompts.jsonl"
    return _parse(file.read_text(encoding="utf-8"), file.name, limit)


def to_sample(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Return up to `count` prompts for sampling: marked ones, else the first of each class."""
    marked = [prompt for prompt in prompts if prompt.sampled]
    if not marked:
        first = {prompt.workload_class: prompt for prompt in reversed(prompts)}
        marked = sorted(first.values(), key=lambda prompt: prompt.number)
    return marked[:count]


def _parse(text: str, name: str, limit: int | None) -> list[Prompt]:
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    prompts = [_row(f"{name} line {number}", number, line) for number, line in lines[:limit]]
    if not prompts:
        raise ConfigError("--prompts", name, "has no requests: one JSON object a line")
    return prompts


def _row(where: str, number: int, line: str) -> Prompt:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(where, line, f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ConfigError(where, line, "must be a JSON object")
    body = {key: value for key, value in row.items() if key not in ("class", "sampled")}
    name = row.get("class")
    if name is not None and not (isinstance(name, str) and valid_class_name(name)):
        raise ConfigError(f"{where} class", name, "use 1 to 32 of a-z, 0-9, _ and -")
    prompt, messages = body.get("prompt"), body.get("messages")
    path = CHAT
    if messages is not None:
        if not (isinstance(messages, list) and messages and isinstance(messages[-1], dict)):
            raise ConfigError(f"{where} messages", messages, "must be a list of messages")
    elif isinstance(prompt, str) and name is not None:
        del body["prompt"]
        body["messages"] = [{"role": "user", "content": prompt}]
    elif isinstance(prompt, str) or _token_ids(prompt):
        path = COMPLETIONS
    else:
        raise ConfigError(where, line, 'needs "messages", or one "prompt": a text or token ids')
    return Prompt(number, path, body, name, bool(row.get("sampled")))


def _token_ids(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(type(t) is int for t in prompt)
