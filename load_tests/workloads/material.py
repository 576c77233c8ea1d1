"""Text to fill prompts with: as long as wanted, seeded, and hardly repeating itself.

What repeats itself would flatter prompt lookup: every sentence, function and record is new.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["CHARS_PER_TOKEN", "fill"]

CHARS_PER_TOKEN: Final = 4.0
"""Of English prose; only lengths that an answer's usage reports are exact."""

_PLACES = (
    "Aldenburg",
    "Brixholm",
    "Carvalho",
    "Dunmore",
    "Estrella",
    "Fjordby",
    "Garrow",
    "Hexford",
)
_THINGS = (
    "bridge",
    "harbour",
    "library",
    "orchard",
    "tram line",
    "observatory",
    "market hall",
    "mill",
)
_DEEDS = (
    "was closed for {n} days after inspectors found {m} cracks in its foundations",
    "recorded {n} visitors in {month}, {m} more than in the year before",
    "was bought by a cooperative of {m} families for {n} thousand crowns",
    "lost {m} of its {n} workers when the railway moved its depot to {other}",
    "supplies {n} households, although only {m} of them had asked for it",
    "had been planned for {other}, where the council refused it by {m} votes to {n}",
    "is looked after by {m} volunteers who meet every {n} days",
)
_MONTHS = ("January", "March", "April", "June", "August", "September", "November")
_VERBS = ("merge", "split", "count", "filter", "rank", "group", "parse", "encode", "collect")
_NOUNS = ("orders", "readings", "tokens", "intervals", "accounts", "routes", "frames", "edges")
_OPERATIONS = ("+", "-", "*", "//", "%")


def _number(rng: random.Random) -> int:
    return rng.randint(3, 970)


def prose(rng: random.Random) -> str:
    """Return a sentence."""
    deed = rng.choice(_DEEDS).format(
        n=_number(rng), m=_number(rng), month=rng.choice(_MONTHS), other=rng.choice(_PLACES)
    )
    year = rng.randint(1870, 2020)
    return f"In {year} the {rng.choice(_THINGS)} of {rng.choice(_PLACES)} {deed}. "


def code(rng: random.Random) -> str:
    """Return a small function."""
    verb, noun, field = rng.choice(_VERBS), rng.choice(_NOUNS), rng.choice(_NOUNS)
    sign, limit, step = rng.choice(_OPERATIONS), _number(rng), rng.randint(2, 97)
    return (
        f"def {verb}_{noun}_{limit}({noun}, limit={limit}):\n"
        f"    {field}_total = 0\n"
        f"    for index, item in enumerate({noun}):\n"
        f"        if item.{field} > limit {sign} (index + {step}):\n"
        f"            {field}_total += item.{field} {sign} {step}\n"
        f"    return {field}_total\n\n"
    )


def records(rng: random.Random) -> str:
    """Return a line of a table."""
    return (
        f"{rng.choice(_PLACES)}; {rng.choice(_THINGS)}; {rng.randint(1, 28)} {rng.choice(_MONTHS)}"
        f"; {_number(rng)} {rng.choice(_NOUNS)}; {_number(rng) / 10:.1f} %\n"
    )


_KINDS: Final[Mapping[str, tuple[str, Callable[[random.Random], str], str]]] = {
    "prose": ("\n\nBackground: ", prose, ""),
    "code": ("\n\nOur code so far:\n```python\n", code, "```"),
    "records": ("\n\nUse these data:\n", records, ""),
}


def fill(kind: str, tokens: float, rng: random.Random) -> str:
    """Return about `tokens` tokens of material; nothing where a part would already be too long."""
    if not kind:
        return ""
    head, part, foot = _KINDS[kind]
    room = tokens * CHARS_PER_TOKEN - len(head) - len(foot)
    parts: list[str] = []
    while room > 0 and len(piece := part(rng)) <= room:
        parts.append(piece)
        room -= len(piece)
    return head + "".join(parts).rstrip(" ") + foot if parts else ""
