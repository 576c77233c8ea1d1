"""The workload class of a request: what it says, else the rules, else what it looks like.

Pure and bounded: long prompts are judged by their beginning and end, so that a request costs
about 16 µs and the longest less than 100 µs (load_tests/bench_classify.py). Validation is vLLM's:
a malformed body is simply hard to classify.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rayspec.errors import BadRequest
from rayspec.ingress import features, features_code
from rayspec.ingress.constrained import constraint, offers_tools
from rayspec.ingress.languages import TRANSLATE
from rayspec.ingress.lexicon_code import CODE_SYSTEM, FILL_IN_MIDDLE
from rayspec.ingress.text import Excerpt, brief, excerpt, instruction
from rayspec.ingress.words import Text
from rayspec.routing.types import header_safe, valid_class_name

__all__ = ["BUILTIN_CLASSES", "CLASS_HEADER", "ClassRule", "Classification", "classify"]

BUILTIN_CLASSES = ("structured", "code", "summarize", "creative", "multilingual", "chat")
CLASS_HEADER = "x-workload-class"

_HOT = 1.2  # temperature; 1.0 is the default of the API and says nothing
_ABSURD = 100.0  # vLLM refuses it
_OPENING = 240  # characters of the first message, which is looked at last
_FOLLOW_UP = 16  # words: a longer message speaks for itself


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


def _by_features(body: Mapping[str, Any], excerpt: Excerpt) -> tuple[str, str]:
    if (enforced := constraint(body)) is not None:
        return "structured", enforced
    if offers_tools(body):
        return "structured", "tools"
    if isinstance(body.get("suffix"), str) and body["suffix"]:
        return "code", "suffix"
    if "```" in excerpt.request:
        return "code", "code fence"
    if any(token in excerpt.request for token in FILL_IN_MIDDLE):
        return "code", "fill in the middle"
    asked, told = Text.of(instruction(excerpt.request)), Text.of(brief(excerpt.system))
    if found := _of_text(asked, told, excerpt):
        return found
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and _HOT <= temperature < _ABSURD:
        return "creative", f"temperature {temperature:.3g}"
    return _of_setting(asked, told, excerpt) or ("chat", "nothing else matched")


def _of_text(asked: Text, told: Text, excerpt: Excerpt) -> tuple[str, str] | None:
    """Return the class that the newest message itself asks for, the surest first."""
    if why := features.output_format(asked):
        return "structured", why
    if why := features_code.named(asked):
        return "code", why
    if why := features.structured(asked, told, excerpt):
        return "structured", why
    if why := features_code.shape(excerpt.request):
        return "code", why
    if asked.kinds & TRANSLATE and (why := features.foreign(asked)):
        return "multilingual", why
    if why := features.given_text(asked, told, excerpt):
        return "summarize", why
    if why := features_code.together(asked):
        return "code", why
    if why := features.creative(asked, told, excerpt):
        return "creative", why
    if why := features.foreign(asked):
        return "multilingual", why
    return None


def _of_setting(asked: Text, told: Text, excerpt: Excerpt) -> tuple[str, str] | None:
    """Return the class that a message without one of its own takes from what surrounds it."""
    if "```" in excerpt.previous:
        return "code", "code fence in the previous answer"
    if setting := told.kinds & CODE_SYSTEM:
        return "code", f"system text: {min(setting)}"
    if excerpt.system and (why := features.foreign(told)):
        return "multilingual", f"system text: {why}"
    if not excerpt.opening or len(asked.words) > _FOLLOW_UP:
        return None
    opening = Text.of(instruction(excerpt.opening)[:_OPENING])
    for name, why in (
        ("code", features_code.named(opening) or features_code.together(opening)),
        ("creative", features.creative(opening, told, excerpt)),
    ):
        if why:
            return name, f"first message: {why}"
    return None


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None
