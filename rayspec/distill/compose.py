"""Makes up prompts of every workload class from phrases and from what packages carry.

A stream without an end that depends on its seed alone; the sources are large enough that prompts
hardly repeat. Some are left for the target to make up itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from rayspec.distill import phrases
from rayspec.distill.harvest import Function, Harvest
from rayspec.distill.prompts import Question
from rayspec.ingress.classify import classify

__all__ = ["compose"]

# Shares of prompts. Classes of which drafts are good are asked more: there they pay.
_SHARES: Final = {
    "code": 0.30,
    "chat": 0.16,
    "made up": 0.20,
    "creative": 0.16,
    "structured": 0.06,
    "summarize": 0.07,
    "multilingual": 0.05,
}
_NAMES: Final = ("run", "compute", "handle", "process_all", "result_of", "make", "apply_to")
_SYSTEM_SHARE = 0.15
_SAMPLED_SHARE = 0.35


def compose(found: Harvest, seed: int = 0) -> Iterator[Question]:
    """Yield questions for ever; a third and what was asked before are asked at temperature 1."""
    rng, asked = random.Random(seed), set[str]()
    makers: dict[str, Callable[[random.Random, Harvest], str]] = {
        "code": _code,
        "chat": _chat,
        "creative": _creative,
        "structured": _structured,
        "summarize": _summarize,
        "multilingual": _multilingual,
    }
    names, weights = list(_SHARES), list(_SHARES.values())
    while True:
        for name in rng.choices(names, weights, k=1024):
            temperature = float(rng.random() < _SAMPLED_SHARE)
            if name not in makers:
                yield Question(None, temperature=temperature)
                continue
            text = makers[name](rng, found)
            if text in asked:  # greedily it would be the same text again
                temperature = 1.0
            asked.add(text)
            messages = [{"role": "user", "content": text}]
            if rng.random() < _SYSTEM_SHARE:
                messages.insert(0, {"role": "system", "content": rng.choice(phrases.SYSTEMS)})
            body: dict[str, Any] = {"messages": messages}
            yield Question(body, classify(body, {}).name, temperature)


def _code(rng: random.Random, found: Harvest) -> str:
    language = rng.choice(phrases.LANGUAGES)
    kind = rng.random()
    if kind < 0.25 or not found.functions:
        start = rng.choice(
            ("Write a {} function that {}.", "Write a program in {} that {}.",
             "Show me {} code that {}.", "Write {} code that {}. Explain it.",
             "In {}, write a function that {}, with an example of its use.")
        )  # fmt: skip
        return start.format(language, rng.choice(phrases.TASKS))
    function = rng.choice(found.functions)
    if kind < 0.65:
        return _fill(rng.choice(phrases.CODE_FROM_SUMMARY), function, language, rng)
    return _fill(rng.choice(phrases.CODE_FROM_SOURCE), function, language, rng)


def _fill(template: str, function: Function, language: str, rng: random.Random) -> str:
    lines = function.source.splitlines()
    given = ", ".join(f"`{name}`" for name in function.parameters[:4])
    values = {
        "language": language,
        "name": function.name,
        "parameters": f" with the parameters {given}" if given else "",
        "arguments": ", ".join(function.parameters),
        "summary": function.summary,
        "source": function.source,
        "head": "\n".join(lines[: rng.randint(min(3, len(lines)), max(3, len(lines) // 2))]),
        "other": rng.choice(_NAMES),
    }
    # Not str.format: code is full of braces.
    for name, value in values.items():
        template = template.replace("{" + name + "}", value)
    return template


def _chat(rng: random.Random, found: Harvest) -> str:
    ask = rng.choice(phrases.ASK)
    topics = rng.sample(phrases.TOPICS, 2)
    if found.packages and rng.random() < 0.06:
        topics = [f"the Python package {rng.choice(found.packages)}" for _ in topics]
    for topic in topics:
        ask = ask.replace("{}", topic, 1)
    return ask


def _creative(rng: random.Random, _: Harvest) -> str:
    subject = rng.choice(phrases.SUBJECTS)
    if rng.random() < 0.2:
        subject = f"{subject} and {rng.choice(phrases.SUBJECTS)}"
    text = rng.choice(phrases.CREATIVE_FORMS).replace("{}", subject)
    if rng.random() < 0.3:
        text = text.replace("Write a ", f"Write a {rng.choice(phrases.MOODS)} ", 1)
    return f"{text}. {rng.choice(phrases.TWISTS)}" if rng.random() < 0.4 else f"{text}."


def _structured(rng: random.Random, _: Harvest) -> str:
    template = rng.choice(phrases.FORMATS * 3 + phrases.TABLES)
    return template.replace("{}", rng.choice(phrases.RECORDS))


def _summarize(rng: random.Random, found: Harvest) -> str:
    if not found.prose:
        return _chat(rng, found)
    return rng.choice(phrases.ON_PROSE).replace("{prose}", rng.choice(found.prose))


def _multilingual(rng: random.Random, _: Harvest) -> str:
    asks, topics = rng.choice(phrases.MULTILINGUAL)
    return rng.choice(asks).replace("{}", rng.choice(topics))
