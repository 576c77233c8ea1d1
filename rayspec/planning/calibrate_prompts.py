"""The requests that a calibration asks: the user's own, or the built-in ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rayspec.errors import ConfigError
from rayspec.planning.calibrate_texts import TEXTS
from rayspec.routing.types import valid_class_name

__all__ = ["Prompt", "TokenPool", "built_in", "read_prompts"]

# What a calibration decides itself; the rest of a body, such as tools or a temperature, stays.
_OURS: Final = ("stream", "stream_options", "model", "n", "rayspec", "max_completion_tokens")
# Long enough to be no stutter, short enough to come several times in a short prompt.
_PHRASE: Final = 12


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request, and its class; "" leaves the class to the application's classifier."""

    workload_class: str
    body: Mapping[str, Any]


def built_in() -> list[Prompt]:
    """Return the prompts that come with rayspec."""
    return [_ask(name, text) for name, texts in TEXTS.items() for text in texts]


def read_prompts(path: Path) -> list[Prompt]:
    """Read JSON lines: `{"class": …, "prompt": …}`, or bodies of OpenAI requests.

    The class of a body is its `metadata.workload_class`, else what the application recognises.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("prompts", str(path), f"cannot be read: {error}") from None
    prompts = [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise ConfigError("prompts", str(path), "holds no prompts; one JSON object a line")
    return prompts


def _parse(path: Path, number: int, line: str) -> Prompt:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError("prompts", f"{path}:{number}", f"is not JSON: {error}") from None
    if not isinstance(row, dict) or not ("prompt" in row or "messages" in row):
        raise ConfigError("prompts", f"{path}:{number}", "needs a `prompt` or `messages`")
    metadata = row.get("metadata")
    named = metadata.get("workload_class") if isinstance(metadata, dict) else None
    name = row.pop("class", None) or named or ""
    if name and not (isinstance(name, str) and valid_class_name(name)):
        raise ConfigError("prompts", f"{path}:{number}", f"{name!r} is no name of a class")
    if set(row) == {"prompt"} and isinstance(row["prompt"], str):
        return _ask(name, row["prompt"])
    return Prompt(name, {key: value for key, value in row.items() if key not in _OURS})


def _ask(name: str, text: str) -> Prompt:
    return Prompt(name, {"messages": [{"role": "user", "content": text}], "temperature": 0})


class TokenPool:
    """Cuts prompts of any length out of tokenised ones: real ends after text from all of them."""

    def __init__(self, prompts: Sequence[Sequence[int]]) -> None:
        self._prompts = [list(prompt) for prompt in prompts if prompt]
        self._filler = [token for prompt in self._prompts for token in prompt]
        self._turns = self._starts()

    def take(self, count: int, length: int) -> list[list[int]]:
        """Return `count` prompts of `length` tokens."""
        return [self._prompt(length) for _ in range(count)]

    def repeat(self, count: int, length: int) -> list[list[int]]:
        """Return `count` prompts that repeat a phrase: even prompt lookup always has a draft."""
        prompts = []
        for _ in range(count):
            phrase = self._prompt(_PHRASE)
            prompts.append((phrase * (length // _PHRASE + 1))[:length])
        return prompts

    def _prompt(self, length: int) -> list[int]:
        turn, start = next(self._turns)
        end = self._prompts[turn % len(self._prompts)][-length:]
        missing = length - len(end)
        filler = (self._filler * (2 + missing // len(self._filler)))[start:]
        return filler[:missing] + end

    def _starts(self) -> Iterator[tuple[int, int]]:
        turn = 0
        while True:
            # A step that is prime to most lengths visits every place before it comes back.
            yield turn, turn * 7919 % len(self._filler)
            turn += 1
