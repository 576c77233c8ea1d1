"""The text of an OpenAI request, as bounded excerpts that classification can afford to read.

Takes bodies as clients send them: whatever has an unexpected shape is no text, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

__all__ = ["Excerpt", "asides", "brief", "excerpt", "instruction"]

_HEAD = 512
_TAIL = 320
_MAX_MESSAGES = 128
_MAX_PARTS = 32
_MAX_INSTRUCTION = 240


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Head and tail of what the model is told, asked, and answered before.

    `request` is the last user message or the prompt, `opening` the first user message where it is
    another one, `previous` the last answer of the assistant; `chars` is the length of everything
    (of the last 128 messages), `raw` tells a prompt to be continued from a conversation.
    """

    system: str = ""
    request: str = ""
    previous: str = ""
    opening: str = ""
    chars: int = 0
    request_chars: int = 0
    opening_chars: int = 0
    system_chars: int = 0
    raw: bool = False


def excerpt(body: Mapping[str, Any]) -> Excerpt:
    """Return the excerpt of a chat or completion request; empty if its prompt is token ids."""
    messages = body.get("messages")
    if isinstance(messages, list):
        return _of_messages(messages)
    texts = list(_strings(body.get("prompt")))
    return Excerpt(
        request=_window(texts[:1]),
        chars=sum(map(len, texts)),
        request_chars=len(texts[0]) if texts else 0,
        raw=True,
    )


def _of_messages(messages: list[Any]) -> Excerpt:
    chars = 0
    newest: dict[str, list[str]] = {}
    opening: list[str] = []
    recent = islice(reversed(messages), _MAX_MESSAGES)
    first = messages[:1] if len(messages) > _MAX_MESSAGES else []
    for message in (*recent, *first):
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        texts = [content] if isinstance(content, str) else list(_strings(content))
        if not any(texts):
            continue
        chars += sum(map(len, texts))
        role = message.get("role")
        role = "system" if role == "developer" else role
        if role not in ("system", "user", "assistant"):
            continue
        if role not in newest:
            newest[role] = texts
        elif role == "user":
            opening = texts
    asked, told = newest.get("user", []), newest.get("system", [])
    return Excerpt(
        system=_window(told),
        request=_window(asked),
        previous=_window(newest.get("assistant", [])),
        opening=_window(opening),
        chars=chars,
        request_chars=sum(map(len, asked)),
        opening_chars=sum(map(len, opening)),
        system_chars=sum(map(len, told)),
    )


def asides(request: str) -> list[str]:
    """Return the first and last lines of a long text that are short beside it."""
    lines = request.strip().split("\n")
    ends = lines[:1] + lines[-1:] if len(lines) > 1 else []
    return [line for line in ends if 0 < len(line) <= _MAX_INSTRUCTION]


def instruction(request: str) -> str:
    """Return what a text says about another one that it quotes: its asides.

    The whole text if it is short; its beginning and its end if it has none.
    """
    if len(request) <= 2 * _MAX_INSTRUCTION:
        return request
    if short := asides(request):
        return "\n".join(short)
    return brief(request)


def brief(text: str) -> str:
    """Return the beginning and the end of a text, as much as features can afford to read."""
    return text if len(text) <= 2 * _MAX_INSTRUCTION else text[:320] + "\n" + text[-160:]


def _strings(content: Any) -> Iterator[str]:
    """Yield the text of a content: a string, or a list of strings or of text parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in islice(content, _MAX_PARTS):
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def _window(texts: list[str]) -> str:
    """Return the beginning and the end of `texts`, without joining more than that needs."""
    if not texts:
        return ""
    if len(texts) == 1:
        (text,) = texts
        if len(text) <= _HEAD + _TAIL:
            return text
        return text[:_HEAD] + "\n" + text[-_TAIL:]
    head = "\n".join(text[:_HEAD] for text in texts)
    tail = "\n".join(text[-_TAIL:] for text in texts)
    return head if len(head) <= _HEAD + _TAIL else head[:_HEAD] + "\n" + tail[-_TAIL:]
