"""The text of an OpenAI request, as bounded excerpts that classification can afford to read.

Takes bodies as clients send them: whatever has an unexpected shape is no text, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

__all__ = ["Excerpt", "excerpt"]

_HEAD = 640
_TAIL = 384
_MAX_MESSAGES = 256
_MAX_PARTS = 32


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Head and tail of what the model is told, asked, and answered before.

    `request` is the last user message or the prompt, `previous` the last answer of the assistant,
    `chars` the length of everything (of the last 256 messages).
    """

    system: str = ""
    request: str = ""
    previous: str = ""
    chars: int = 0


def excerpt(body: Mapping[str, Any]) -> Excerpt:
    """Return the excerpt of a chat or completion request; empty if its prompt is token ids."""
    messages = body.get("messages")
    if isinstance(messages, list):
        return _of_messages(messages)
    texts = list(_strings(body.get("prompt")))
    return Excerpt(request=_window(texts[:1]), chars=sum(map(len, texts)))


def _of_messages(messages: list[Any]) -> Excerpt:
    chars = 0
    found: dict[str, str] = {}
    recent = islice(reversed(messages), _MAX_MESSAGES)
    first = messages[:1] if len(messages) > _MAX_MESSAGES else []
    for message in (*recent, *first):
        if not isinstance(message, dict):
            continue
        texts = list(_strings(message.get("content")))
        chars += sum(map(len, texts))
        role = message.get("role")
        role = "system" if role == "developer" else role
        if texts and role in ("system", "user", "assistant") and not found.get(role):
            found[role] = _window(texts)
    return Excerpt(
        found.get("system", ""), found.get("user", ""), found.get("assistant", ""), chars
    )


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
