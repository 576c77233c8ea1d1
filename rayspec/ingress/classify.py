"""The workload class of a request: what it says, else the rules, else what it looks like.

Pure and bounded: long prompts are judged by their beginning and end, so that a request costs
about 25 µs and the longest less than 100 µs. Validation is vLLM's: a malformed body is simply
hard to classify.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rayspec.errors import BadRequest
from rayspec.ingress import lexicon
from rayspec.ingress.constrained import constraint, offers_tools
from rayspec.ingress.text import Excerpt, excerpt
from rayspec.routing.types import header_safe, valid_class_name

__all__ = ["BUILTIN_CLASSES", "CLASS_HEADER", "ClassRule", "Classification", "classify"]

BUILTIN_CLASSES = ("structured", "code", "summarize", "creative", "multilingual", "chat")
CLASS_HEADER = "x-workload-class"

_HOT = 1.2  # temperature; 1.0 is the default of the API and says nothing
_ABSURD = 100.0  # vLLM refuses it
_FOREIGN_SHARE = 0.2

_Words = frozenset[str]


@dataclass(frozen=True, slots=True)
class Classification:
    """The class of a request and, in a few words, why."""

    name: str
    why: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "why", header_safe(self.why))


@dataclass(frozen=True, slots=True)
class ClassRule:
    """Puts requests that meet all given conditions into `workload_class`.

    `model` is a name, `*` matching anything; `header` a name and a regular expression for its
    value; the two patterns are searched, ignoring case, in the beginning and end of the system
    text and of the last user message or prompt; `min_prompt_chars` counts the whole prompt.
    """

    workload_class: str
    model: str | None = None
    header: tuple[str, str] | None = None
    system_pattern: str | None = None
    prompt_pattern: str | None = None
    min_prompt_chars: int | None = None

    def __post_init__(self) -> None:
        if not valid_class_name(self.workload_class):
            raise ValueError(f"workload_class {self.workload_class!r} is not 1-32 of a-z0-9_-")
        patterns = [self.system_pattern, self.prompt_pattern]
        if self.header is not None:
            patterns.append(self.header[1])
        if not any((self.model, self.min_prompt_chars, *patterns)):
            raise ValueError(f"the rule for class {self.workload_class!r} has no condition")
        for pattern in filter(None, patterns):
            try:
                re.compile(pattern, re.IGNORECASE)
            except re.error as error:
                raise ValueError(f"pattern {pattern!r}: {error}") from error

    def matches(self, body: Mapping[str, Any], headers: Mapping[str, str], text: Excerpt) -> bool:
        """Whether a request meets every condition; header names are lower-case."""
        if self.model is not None and not fnmatchcase(str(body.get("model")), self.model):
            return False
        if self.header is not None:
            value = headers.get(self.header[0].lower())
            if value is None or not _found(self.header[1], value):
                return False
        if self.min_prompt_chars is not None and text.chars < self.min_prompt_chars:
            return False
        if self.system_pattern is not None and not _found(self.system_pattern, text.system):
            return False
        return self.prompt_pattern is None or _found(self.prompt_pattern, text.request)


def classify(
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    rules: Sequence[ClassRule] = (),
) -> Classification:
    """Return the class of a request, given its body and its headers by lower-case name.

    Raises only `BadRequest`, for a class that the request names itself and that is not a name.
    """
    if (named := _explicit(body, headers)) is not None:
        return named
    text = excerpt(body)
    for number, rule in enumerate(rules):
        if rule.matches(body, headers, text):
            return Classification(rule.workload_class, f"rule {number}")
    name, why = _by_features(body, text)
    return Classification(name, why)


def _explicit(body: Mapping[str, Any], headers: Mapping[str, str]) -> Classification | None:
    metadata = body.get("metadata")
    in_body = metadata.get("workload_class") if isinstance(metadata, dict) else None
    named = ((CLASS_HEADER, headers.get(CLASS_HEADER)), ("metadata.workload_class", in_body))
    for source, name in named:
        if name is None:
            continue
        if not isinstance(name, str) or not valid_class_name(name):
            raise BadRequest(
                f"{source} must be 1 to 32 characters of a-z, 0-9, _ and -", param=source
            )
        return Classification(name, source)
    return None


def _by_features(body: Mapping[str, Any], text: Excerpt) -> tuple[str, str]:
    if (enforced := constraint(body)) is not None:
        return "structured", enforced
    if offers_tools(body):
        return "structured", "tools"
    if isinstance(body.get("suffix"), str) and body["suffix"]:
        return "code", "suffix"
    request, system = text.request.lower(), text.system.lower()
    asked, told = frozenset(lexicon.words(request)), frozenset(lexicon.words(system))
    both = f"{request}\n{system}"
    for name, why in (
        ("code", _code(request, asked, told, text)),
        ("structured", _phrase(both, lexicon.STRUCTURED_PHRASES)),
        ("summarize", _summarize(both, asked | told, text)),
        ("creative", _creative(both, asked)),
        ("multilingual", _multilingual(text.request, asked)),
    ):
        if why:
            return name, why
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and _HOT <= temperature < _ABSURD:
        return "creative", f"temperature {temperature:.3g}"
    return "chat", "nothing else matched"


def _code(request: str, asked: _Words, told: _Words, text: Excerpt) -> str | None:
    if "```" in request:
        return "code fence"
    if _phrase(request, lexicon.FILL_IN_MIDDLE):
        return "fill in the middle"
    if lexicon.CODE_LINE.search(text.request) or _phrase(text.request, lexicon.CODE_TOKENS):
        return "source text"
    if _phrase(text.request, lexicon.CODE_CALL_SIGNS) and lexicon.CODE_CALL.search(text.request):
        return "source text"
    if phrase := _phrase(request, lexicon.CODE_PHRASES):
        return phrase
    languages, trade = asked & lexicon.LANGUAGE_WORDS, asked & lexicon.TRADE_WORDS
    evidence = asked & lexicon.CODE_ALONE
    if languages and (trade or asked & lexicon.TRADE_WORDS_AMBIGUOUS):
        evidence |= languages
    if trade and asked & lexicon.LANGUAGE_WORDS_AMBIGUOUS:
        evidence |= trade
    if evidence:
        return _listed(evidence)
    if "```" in text.previous:
        return "code fence in the previous answer"
    if setting := told & lexicon.CODE_SYSTEM:
        return f"system text: {_listed(setting)}"
    return None


def _summarize(both: str, words: _Words, text: Excerpt) -> str | None:
    if text.chars < lexicon.MADE_OF_TEXT:
        return None
    if verbs := words & lexicon.EXTRACTIVE_VERBS:
        return f"long prompt, {min(verbs)}"
    phrase = _phrase(both, lexicon.EXTRACTIVE_PHRASES)
    return f"long prompt, {phrase}" if phrase else None


def _creative(both: str, asked: _Words) -> str | None:
    if phrase := _phrase(both, lexicon.CREATIVE_PHRASES):
        return phrase
    forms = asked & lexicon.CREATIVE_FORMS
    if forms and asked & lexicon.CREATIVE_VERBS:
        return f"{min(asked & lexicon.CREATIVE_VERBS)} {min(forms)}"
    return None


def _multilingual(request: str, asked: _Words) -> str | None:
    if not request.isascii():
        sample = request[:: len(request) // 256 + 1]
        letters = sum(map(str.isalpha, sample))
        if letters and len(lexicon.NON_LATIN.findall(sample)) >= 0.3 * letters:
            return "script"
    if asked & lexicon.TRANSLATE and (languages := asked & lexicon.LANGUAGES):
        return f"translate {min(languages)}"
    foreign = asked & lexicon.FOREIGN_WORDS
    if len(foreign) >= 2 and len(foreign) >= _FOREIGN_SHARE * len(asked):
        return "function words"
    return None


def _phrase(text: str, phrases: tuple[str, ...]) -> str | None:
    return next((phrase for phrase in phrases if phrase in text), None)


def _listed(words: _Words) -> str:
    return " ".join(sorted(words)[:3])


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None
