"""Requests of many shapes with the workload class that a person would give them.

`tests/data/classified.jsonl` has one a line: id, split, label, request. `dev` is what the word
lists were made and mended with; `test` was written after they were frozen, and nothing was changed
after it was scored. A split that its author knew while making the lists is no test: one that was
scored 0.96 where fresh requests got 0.65 became part of `dev`, and so did each later one that
something was learnt from.

Requests were written for this purpose, the two splits with different long texts. Labels say what
the output is like: `structured` is read by a program, `summarize` says again what the prompt said,
`multilingual` is not in English, and `chat` is everything else, e-mails, advice and talk about
code or poems included. Code stays `code` in any language, a poem in Chinese is `multilingual`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from load_tests.bench_classify import Labelled, read_labelled

Body = dict[str, Any]
Split = Literal["dev", "test"]


def chat(user: Any, system: str | None = None, **fields: Any) -> Body:
    messages = [{"role": "user", "content": user}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"model": "m", "messages": messages, **fields}


def turns(*contents: str, **fields: Any) -> Body:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return {"model": "m", "messages": messages, **fields}


def prompt(text: Any, **fields: Any) -> Body:
    return {"model": "m", "prompt": text, **fields}


TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


@cache
def labelled(split: Split) -> tuple[Labelled, ...]:
    """Return the requests of a split."""
    return tuple(each for each in read_labelled() if each.split == split)
