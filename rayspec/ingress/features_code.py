"""What a request about programs looks like: each function names its evidence or returns None.

Words, and pairs of words, are looked up in sets, so that a longer list costs nothing; expressions
begin with a sign to which a search can leap, or are matched once a line.
"""

from __future__ import annotations

from rayspec.ingress import lexicon_code
from rayspec.ingress.words import Text, first, listed, phrase

__all__ = ["named", "shape", "together"]

_MAX_LINES = 32
_SHAPE_CHARS = 512  # source text shows early


def named(text: Text) -> str | None:
    """Name the words that ask about programs."""
    kinds = text.kinds
    if pairs := text.pairs & lexicon_code.CODE_PAIRS:
        return first(pairs)
    named, trade = kinds & lexicon_code.LANGUAGE_WORDS, kinds & lexicon_code.TRADE_WORDS
    evidence = kinds & lexicon_code.CODE_ALONE
    if named and (trade or kinds & lexicon_code.TRADE_WORDS_AMBIGUOUS):
        evidence |= named
    if trade and (unsure := kinds & lexicon_code.LANGUAGE_WORDS_AMBIGUOUS):
        evidence |= trade | unsure
    if not evidence and (pairs := text.pairs & lexicon_code.ABOUT_LANGUAGE):
        return first(pairs)
    if not evidence and not text.asks and (verbs := kinds & lexicon_code.CODE_VERBS):
        if made := kinds & lexicon_code.CODE_ARTEFACTS:
            return f"{min(verbs)} {min(made)}"
        if pairs := text.pairs & lexicon_code.IN_LANGUAGE:
            return f"{min(verbs)} {first(pairs)}"
        if "write" in verbs and (pairs := text.pairs & lexicon_code.CODE_ARTEFACT_PAIRS):
            return f"write {first(pairs)}"
    return listed(evidence) if evidence else None


def together(text: Text) -> str | None:
    """Name words that ask about programs only by being together."""
    kinds = text.kinds
    trade, doubtful = kinds & lexicon_code.TRADE_WORDS, kinds & lexicon_code.TRADE_WORDS_AMBIGUOUS
    if (
        len(trade) >= 2
        or (trade and len(doubtful) >= 2)
        or (len(doubtful - lexicon_code.OFFICE) >= lexicon_code.SEVERAL)
    ):
        return listed(trade | doubtful)
    unsure = kinds & lexicon_code.LANGUAGE_WORDS_AMBIGUOUS
    if unsure and doubtful and text.pairs & lexicon_code.IN_LANGUAGE:
        return listed(unsure | doubtful)
    return None


def shape(text: str) -> str | None:
    """Tell source text, diffs, stack traces and shell commands from prose."""
    raw = text[:_SHAPE_CHARS]
    lower = raw.lower()
    lines = raw.split("\n", _MAX_LINES)[:_MAX_LINES]
    if any(line.rstrip().endswith(lexicon_code.CODE_LINE_ENDS) for line in lines[:-1]):
        return "source text"
    margin = lexicon_code.CODE_LINE_MARGIN
    if any(lexicon_code.CODE_LINE.match(line.lstrip(margin)) for line in lines):
        return "source text"
    if raw.startswith("-- ") or "\n-- " in raw:
        return "sql comment"
    if (start := phrase(lower, lexicon_code.SQL_STARTS)) and _sql(lower, start):
        return "sql"
    if (
        ("_" in raw and lexicon_code.SNAKE_CASE.search(raw))
        or lexicon_code.FILE_NAME.search(raw)
        or lexicon_code.SYSTEM_PATH.search(raw)
        or (("Error" in raw or "Exception" in raw) and lexicon_code.ERROR_NAME.search(raw))
        or (raw != lower and any(map(_camel_case, raw.split())))
    ):
        return "names of a program"
    if "(" in raw and lexicon_code.CALL.search(raw):
        return "calls of a program"
    if sum(map(raw.count, lexicon_code.OPERATOR_SIGNS)) < 2:
        return None
    if plain := phrase(raw, lexicon_code.PLAIN_OPERATORS):
        return f"operator {plain.strip()}"
    signs = [sign for sign in lexicon_code.OPERATORS if sign in raw]
    return f"operators {' '.join(signs[:3])}" if len(signs) >= 3 else None


def _camel_case(word: str) -> bool:
    # Two small letters first: iPhone and eBay are no programs.
    return not word.islower() and word[:2].isalpha() and word[:2].islower() and word.isalnum()


def _sql(lower: str, start: str) -> bool:
    rest = lower[lower.index(start) :]
    return phrase(rest, lexicon_code.SQL_PARTS) is not None and (
        phrase(rest, lexicon_code.SQL_SIGNS) is not None
    )
