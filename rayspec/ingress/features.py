"""What a request of the other classes looks like: one function each, which names its evidence.

They return None where there is none; see `features_code` for what keeps them fast.
"""

from __future__ import annotations

from collections.abc import Set

from rayspec.ingress import languages, lexicon
from rayspec.ingress.text import Excerpt, asides, brief, instruction
from rayspec.ingress.words import Text, first, listed

__all__ = ["creative", "foreign", "given_text", "output_format", "structured"]

_MAX_LINES = 32
_FEW_WORDS = 6


def output_format(text: Text) -> str | None:
    """Name the form that the answer is to have, said so plainly that the topic does not matter."""
    if text.asks or text.kinds & lexicon.PROGRAM:
        return None
    pairs = text.pairs & lexicon.TO_FORMAT
    return first(pairs) if pairs else None


def structured(text: Text, told: Text, excerpt: Excerpt) -> str | None:
    """Name the words that ask for output in a form that a program reads."""
    for each in (text, told):
        kinds = each.kinds
        about = each.asks and len(each.words) < 2 * _FEW_WORDS  # a question about a format
        if not about and (wanted := kinds & lexicon.FORMATS) and kinds & lexicon.FORMAT_VERBS:
            return min(wanted)
        if not about and kinds & lexicon.FORM_VERBS:
            if pairs := each.pairs & lexicon.STRUCTURED_PAIRS:
                return first(pairs)
            if "{" in each.raw and lexicon.OBJECT.search(each.raw):
                return "a form to fill in"
        if why := _choice(each):
            return why
    return _examples(excerpt.request) if excerpt.raw else None


def _choice(text: Text) -> str | None:
    """Name what tells that the answer is one of few."""
    if pairs := text.pairs & lexicon.BARE_PAIRS:
        return first(pairs)
    if "one of:" in text.lower or "one of these:" in text.lower:
        return "one of"
    if text.kinds & lexicon.ANSWERING and (pairs := text.pairs & lexicon.CHOICE_PAIRS):
        return first(pairs)
    for verb in text.kinds & lexicon.REPLYING:
        at = text.words.index(verb)
        after = text.words[at + 1 : at + 7]
        if after[:1] == ("with",) and (how := lexicon.RESTRICTING_ANY.intersection(after)):
            return f"{verb} with {min(how)}"
    for word in text.kinds & lexicon.RESTRICTING if text.kinds & lexicon.LABELS else ():
        at = text.words.index(word)
        if lexicon.STATING.intersection(text.words[max(0, at - 1) : at]):
            continue
        near = text.words[max(0, at - 4) : at + 5]
        if labels := lexicon.LABELS.intersection(near):
            return f"{word} {min(labels)}"
    return None


def _examples(request: str) -> str | None:
    """Tell a prompt of examples by the label of its last line, which earlier lines have too."""
    if (shot := lexicon.SHOT.search(request)) is None:
        return None
    label = shot[1]
    before = request[: shot.start()].split("\n")
    shown = any(line.startswith(label) and len(line) < len(label) + 60 for line in before)
    return "examples" if shown else None


def given_text(text: Text, told: Text, excerpt: Excerpt) -> str | None:
    """Name what tells that the answer is to be taken from a text in the prompt."""
    if excerpt.chars < lexicon.MADE_OF_TEXT:
        return None
    if excerpt.request_chars >= lexicon.MADE_OF_TEXT:
        return _about(text, told, excerpt.request)
    if excerpt.system_chars >= lexicon.MADE_OF_TEXT and _marked(excerpt.system, labels=True):
        return "text in the system message"
    if verbs := (text.kinds | told.kinds) & lexicon.EXTRACTIVE_VERBS:
        return f"long prompt, {min(verbs)}"
    if pairs := text.pairs & lexicon.EXTRACTIVE_PAIRS:
        return f"long prompt, {first(pairs)}"
    if excerpt.opening_chars >= lexicon.MADE_OF_TEXT:
        opening = Text.of(instruction(excerpt.opening))
        why = _about(opening, told, excerpt.opening)
        if not why and (
            offered := Text.of(brief(excerpt.previous)).kinds & lexicon.EXTRACTIVE_VERBS
        ):
            why = f"offered to {min(offered)}"
        return why and f"first message: {why}"
    return None


def _about(asked: Text, told: Text, whole: str) -> str | None:
    """Tell why `whole`, a long message that says what it wants in `asked`, brings its text."""
    if verbs := (asked.kinds | told.kinds) & lexicon.EXTRACTIVE_VERBS:
        return f"long prompt, {min(verbs)}"
    if pairs := asked.pairs & lexicon.EXTRACTIVE_PAIRS:
        return f"long prompt, {first(pairs)}"
    nouns = asked.kinds & lexicon.TEXT_NOUNS
    if nouns and asked.kinds & lexicon.POINTING:
        return f"long prompt, {min(nouns)}"
    if told.kinds & lexicon.EVERY and (nouns := told.kinds & lexicon.TEXT_NOUNS):
        return f"system text: every {min(nouns)}"
    if _marked(whole) or lexicon.LABEL_AT_END.search(whole):
        return "long prompt, marked text"
    if asides(whole) and sum(map(asked.words.count, lexicon.FIRST_PERSON)) <= 1:
        return "long text, short instruction"
    return None


def _marked(text: str, *, labels: bool = False) -> bool:
    lines = text.split("\n", _MAX_LINES)[:_MAX_LINES]
    return any(lexicon.MARKER.match(line.lstrip(" \t#<*[")) for line in lines) or (
        labels and any(map(lexicon.LABEL_LINE.match, lines))
    )


def creative(text: Text, told: Text, excerpt: Excerpt) -> str | None:
    """Name what tells that something is to be invented."""
    if lexicon.SCREENPLAY.match(text.raw):
        return "screenplay or chapter"
    if setting := told.kinds & lexicon.CREATIVE_SYSTEM:
        return f"system text: {min(setting)}"
    if pairs := told.pairs & lexicon.CREATIVE_PAIRS:
        return f"system text: {first(pairs)}"
    if (forms := told.kinds & lexicon.CREATIVE_FORMS) and told.kinds & lexicon.CREATIVE_VERBS:
        return f"system text: {min(forms)}"
    if (excerpt.raw or text.pairs & lexicon.GO_ON) and _narrative(text):
        return "narration"
    if style := text.kinds & lexicon.CREATIVE_STYLE:
        return min(style)
    if text.asks and text.words[:2] not in lexicon.ASKING_FOR:
        return None
    return _invention(text)


def _invention(text: Text) -> str | None:
    if pairs := text.pairs & lexicon.CREATIVE_PAIRS:
        return first(pairs)
    kinds = text.kinds
    forms, verbs = kinds & lexicon.CREATIVE_FORMS, kinds & lexicon.CREATIVE_VERBS
    if forms and verbs:
        return f"{min(verbs)} {min(forms)}"
    if certain := kinds & lexicon.CREATIVE_CERTAIN:
        return min(certain)
    if verbs and (moods := kinds & lexicon.CREATIVE_MOODS):
        return f"{min(verbs)} {min(moods)}"
    world = kinds & lexicon.CREATIVE_WORLD
    if world and (making := kinds & lexicon.CREATIVE_MAKING):
        return f"{min(making)} {min(world)}"
    for opener in text.words[:_FEW_WORDS]:
        if opener in lexicon.CREATIVE_OPENERS:
            return opener
    if alone := kinds & lexicon.CREATIVE_ALONE:
        return min(alone)
    told_who = text.lower.startswith(lexicon.ROLE) and not kinds & lexicon.EXPERTS
    if told_who and (world or "i" in kinds):
        return "a role to play"
    if text.words[:1] in (("finish",), ("continue",)):
        return text.words[0]
    return None


def _narrative(text: Text) -> bool:
    told = {word for word in text.kinds if word in lexicon.NARRATIVE or word.endswith("ed")}
    return len(told) >= 2 and "?" not in text.raw and not any(map(str.isdigit, text.raw))


def foreign(text: Text) -> str | None:
    """Name what tells that the answer is to be in another language than English."""
    if text.script:
        return "script"
    if named := text.kinds & languages.LANGUAGES:
        if text.kinds & languages.TRANSLATE:
            return f"translate {min(named)}"
        if text.kinds & languages.SAYING and (pairs := text.pairs & languages.INTO_LANGUAGE):
            return first(pairs)
    if "languages" in text.kinds and text.kinds & {"say", "translate", "write"}:
        return "languages"
    return _latin(text.kinds)


def _latin(kinds: Set[str]) -> str | None:
    """Tell another language by its function words and letters, against those of English."""
    known = kinds & languages.FOREIGN_WORDS
    accented = sum(not word.isascii() and word.isalpha() for word in kinds)
    particles = kinds & languages.PARTICLES
    if not known and (len(kinds) < 4 or (not accented and len(particles) < 2)):
        return None
    score = len(known) + accented + len(particles)
    english = 2 * len(kinds & languages.ENGLISH_WORDS) - len(kinds & languages.SHARED_WORDS)
    if english < score and 6 * score >= len(kinds):
        return f"function words {listed(known)}" if known else "letters"
    return None
