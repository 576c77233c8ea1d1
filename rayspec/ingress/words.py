"""Texts as features read them: in lower case, split into words, with the pairs that they form."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise

from rayspec.ingress.languages import NON_LATIN

__all__ = ["Text", "first", "listed", "phrase", "word_pairs", "word_set"]

Pair = tuple[str, str]

_MAX_WORDS = 128  # more than an excerpt has, unless they are single letters


def word_set(text: str) -> frozenset[str]:
    """Return the words of `text`."""
    return frozenset(text.split())


def word_pairs(text: str) -> frozenset[Pair]:
    """Return pairs, given with commas between them: words that count where one follows the other.

    However many there are, they are looked up at once.
    """
    first_second = (pair.split() for pair in text.split(","))
    return frozenset((before, after) for before, after in first_second)


def phrase(text: str, phrases: tuple[str, ...]) -> str | None:
    """Return the first of `phrases` that is in `text`."""
    return next((each for each in phrases if each in text), None)


def first(pairs: Set[Pair]) -> str:
    """Name one of `pairs`, always the same."""
    return " ".join(min(pairs))


def listed(words: Set[str]) -> str:
    """Name a few of `words`, always the same."""
    return " ".join(sorted(words)[:3])


@dataclass(frozen=True, slots=True)
class Text:
    """A text in the forms that features ask for; `kinds` is the set of its `words`.

    `script` tells that it is written in another script than Latin.
    """

    raw: str
    lower: str
    words: tuple[str, ...]
    kinds: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    script: bool

    @classmethod
    def of(cls, raw: str) -> Text:
        """Prepare `raw` once for all features."""
        script = _script(raw)
        lower = raw.lower()
        if script:  # the word lists are in Latin script, and other letters are slow to split
            lower = lower.encode("ascii", "replace").decode("ascii")
        words = tuple(_split(lower)[:_MAX_WORDS])
        pairs = frozenset(pairwise(words))
        return cls(raw, lower, words, frozenset(words), pairs, script)

    @property
    def asks(self) -> bool:
        """Whether it begins by asking for information, not for something to be made."""
        if self.words[:2] == ("tell", "me"):
            return self.words[2:3] == ("about",) or bool(QUESTIONS & {*self.words[2:3]})
        return bool(self.words) and self.words[0] in QUESTIONS


def _script(raw: str) -> bool:
    """Tell whether three in ten letters, of a sample, are of another script than Latin."""
    if raw.isascii():
        return False
    sample = raw[:: len(raw) // 128 + 1]
    letters = sum(map(str.isalpha, sample))
    return bool(letters) and len(NON_LATIN.findall(sample)) >= 0.3 * letters


def _split(text: str) -> list[str]:
    """Split lower-case text at white space and punctuation; `c++` and `c#` stay whole."""
    # Each is several times as fast as the other for such text.
    if text.isascii():
        return text.translate(_PUNCTUATION).split()
    return _WORD.findall(text)


_WORD = re.compile(r"[^\W_]+[+#]{0,2}")
_PUNCTUATION = str.maketrans(dict.fromkeys("!\"$%&'()*,-./:;<=>?@[\\]^_`{|}~", " "))

# What asks for information rather than for something to be made.
QUESTIONS = word_set(
    "what whats which who whose when where why how is are was were did does do explain compare "
    "summarize summarise recommend rank"
)
