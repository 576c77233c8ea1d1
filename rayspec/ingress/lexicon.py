"""Words and shapes by which the built-in classes are told apart. Data only."""

from __future__ import annotations

import re


def words(text: str) -> list[str]:
    """Split lower-case text at white space and punctuation; `c++` and `c#` stay whole."""
    # Four times as fast as a regular expression.
    return text.translate(_PUNCTUATION).split()


_PUNCTUATION = str.maketrans(
    dict.fromkeys("!\"$%&'()*,-./:;<=>?@[\\]^_`{|}~¿¡«»“”„‘’…–—、。？！：", " ")
)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Code: a programming language or tool together with a word of the trade; or source text itself.
# A word that has another life (rust, list) counts only beside one that has none (sql, function).
LANGUAGE_WORDS = _set(
    "python javascript typescript kotlin golang scala haskell perl php lua c++ c# sql mysql "
    "postgres postgresql sqlite bash zsh powershell html css django flask fastapi numpy pandas "
    "pytorch tensorflow nodejs npm docker dockerfile kubernetes terraform cmake makefile git "
    "github regex graphql leetcode verilog cuda matlab fortran cobol solidity linux asyncio "
    "pytest sklearn"
)
LANGUAGE_WORDS_AMBIGUOUS = _set(
    "java rust swift ruby react vue angular node redis assembly latex excel spark go c r json unix"
)
CODE_ALONE = _set(
    "regex regexp javascript typescript css html sql dockerfile c++ c++11 c++14 c++17 c++20 c# "
    "pytest numpy pandas kubectl fastapi refactor traceback segfault codebase"
)
TRADE_WORDS = _set(
    "function functions script scripts code codebase bug bugs implement implementation refactor "
    "debug compile compiler exception exceptions algorithm api endpoint recursion recursive query "
    "queries regex decorator iterator pointer dict integer variable variables async mutex struct "
    "rebase dockerfile webpage parser syntax generics enum segfault traceback stacktrace snippet "
    "backend frontend dataframe kernel program lifetimes goroutine hashmap subquery cli"
)
TRADE_WORDS_AMBIGUOUS = _set(
    "array arrays method methods class classes error errors loop dictionary list lists tuple "
    "string strings module library package unit test tests component hook await thread join index "
    "schema table commit branch merge container website app server template trait interface "
    "borrow overflow stack macro formula command file files page web button form write sort "
    "reverse parse fix convert column columns row rows import install process fails"
)
CODE_PHRASES = (
    "write code", "write a function", "write a program", "write a script", "write a class",
    "unit test", "pull request", "stack trace", "time complexity", "binary search",
    "linked list", "source code", "code review", "fix the bug", "fix this bug", "null pointer",
    "merge sort", "quicksort", "data structure", "regular expression", "sql query",
    "segmentation fault", "refactor this", "code below", "following code", "this code",
)  # fmt: skip
CODE_SYSTEM = _set(
    "programmer coder coding programming developer compiler sql python javascript typescript code "
    "codebase repository ide"
)
FILL_IN_MIDDLE = ("<fim_prefix>", "<|fim_prefix|>", "<|fim_begin|>", "<fim_suffix>", "[suffix]")
CODE_LINE = re.compile(
    r"^[ \t]*(?:def \w+\(|class \w+[:({]|from [\w.]+ import |import [\w.]+(?: as \w+)?;?$"
    r"|#include\s*[<\"]|(?:pub |async |static |export )*(?:fn|function|func) \w+\s*[(<]"
    r"|(?:const|let|var) \w+\s*=|public (?:static |class |final )|#!/|package \w+;?$"
    r"|using namespace |<(?:!doctype|html|div|script|\?php)|traceback \(most recent call last\)"
    r"|[^\n]{0,100}(?:[;{]|\);|\) \{)$\n)",
    re.MULTILINE | re.IGNORECASE,
)
CODE_CALL = re.compile(r"\w\.\w+\([\w.,\"' ]*\)|[a-z]Exception\b")
CODE_CALL_SIGNS = ("(", "Exception")  # a text without either is spared the expression
CODE_TOKENS = ("INSERT INTO ", "DELETE FROM ", "CREATE TABLE ", "ALTER TABLE ", "SELECT ")

# Structured: asks in words for output that a program reads.
STRUCTURED_PHRASES = (
    "valid json", "as json", "in json", "json object", "json format", "json only", "only json",
    "output json", "return json", "respond with json", "json with", "json array", "json schema",
    "as a json", "as yaml", "as xml", "valid xml", "valid yaml", "as csv", "csv format", "json:",
    "json list", "json document", "in yaml", "to json", "as a csv", "into json",
)  # fmt: skip

# Summarize: an extractive instruction over text that is given.
EXTRACTIVE_VERBS = _set(
    "summarize summarise summary summarized tldr condense extract paraphrase rewrite rephrase "
    "proofread shorten outline minutes"
)
EXTRACTIVE_PHRASES = (
    "tl;dr", "key points", "main points", "main idea", "key takeaways", "takeaways",
    "according to the", "based on the", "bullet points", "action items", "from the text",
    "in the passage", "in the article", "in the document", "the following article",
    "the following text", "the context", "given context", "answer using only", "one paragraph",
    "using only the", "given the document", "these documents",
)  # fmt: skip
MADE_OF_TEXT = 400  # characters: less is hardly a text to extract from

# Creative: a verb of making together with a form of fiction or verse.
CREATIVE_FORMS = _set(
    "poem poems haiku sonnet limerick ballad verse verses story stories tale fable fairytale "
    "lyrics song rap plot novel novella fiction screenplay scene monologue dialogue joke jokes "
    "riddle slogan slogans tagline parable myth legend villanelle fanfiction character backstory "
    "chapter ode skit speech toast sequel worldbuilding"
)
CREATIVE_VERBS = _set(
    "write compose create invent imagine tell make craft continue pretend dream give pen draft "
    "improvise brainstorm generate need come"
)
CREATIVE_PHRASES = (
    "once upon a time", "role-play", "roleplay", "role play", "imagine you are", "imagine that you",
    "pretend you are", "pretend to be", "in the style of", "creative writing", "make up a",
    "short story", "you are a storyteller", "brainstorm", "creative writer", "novelist",
)  # fmt: skip

# Multilingual: a script other than Latin, a translation, or function words of another language.
NON_LATIN = re.compile(
    "[\u0370-\u1dff\u1f00-\u1fff\u2c00-\u2dff\u2e80-\ud7ff\uf900-\ufaff\ufb1d-\ufdff\ufe70-\ufefe"
    "\uff66-\uffdc\U00010300-\U000107ff\U00020000-\U0003ffff]"
)
TRANSLATE = _set("translate translation translating translator")
LANGUAGES = _set(
    "french german spanish italian portuguese dutch swedish norwegian danish finnish polish czech "
    "hungarian romanian greek turkish russian ukrainian arabic hebrew persian farsi hindi urdu "
    "bengali tamil telugu thai vietnamese indonesian malay tagalog chinese mandarin cantonese "
    "japanese korean swahili latin english bulgarian serbian croatian"
)
FOREIGN_WORDS = _set(
    "el los las una que por para con como cuál qué es está del más puedo quiero cómo pero sobre "
    "le les des une est dans pour avec sur qui quelle quel sont je vous nous mais comment cette du "
    "der das und ist nicht ein eine für mit auf wie ich sie zu den dem von wird kannst bitte warum "
    "o os uma não são em com você isso mais quais é "
    "il gli di che per si non sono della nel perché qual cosa questo "
    "het een van niet wat hoe kun voor zijn "
    "nie jest czy jak się na dla bir ve bu için nasıl nedir và là của không cho "
    "och att det som är hur för jag inte yang dan apa untuk dengan"
)
