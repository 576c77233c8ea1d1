"""What counts as evidence, and what only looks like it."""

from __future__ import annotations

import pytest

from rayspec.ingress import features, features_code
from rayspec.ingress.text import Excerpt, asides, instruction
from rayspec.ingress.words import Text

LONG = "The ferry was late again and nobody on the quay was surprised. " * 12
NOTHING = Text.of("")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = [i for i in rows if i]\ny += 1\nz = {}\nprint(x[0])", True),
        ("SELECT a FROM t WHERE b = 1", True),
        ("select a present from the shelf where you like", False),
        ("call get_user_name for me", True),
        ("what does useEffect do", True),
        ("I bought an iPhone on eBay", False),
        ("see /etc/hosts", True),
        ("and/or, his/her, /shrug", False),
        ("fails with ZeroDivisionError", True),
        ("frobnicate(x, y) hangs", True),
        ("the item(s), the person(s), the key (in the drawer)", False),
        ("sin(x) and cos(x)", False),
        ("look at parse_args.py", True),
        ("I live in St. Pölten. Sh! Go.", False),
        ("@@ -1,2 +1,2 @@\n-a\n+b", True),
        ("   at com.acme.Main.run(Main.java:3)", True),
        ("We meet at noon (or later).", False),
        ("a && b || c", True),
        ("tea -> coffee", False),
    ],
)
def test_source_text_and_prose(text: str, expected: bool) -> None:
    assert (features_code.shape(text) is not None) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wo finde ich eine Apotheke?", True),
        ("Where is the café, and is the crème brûlée any good there?", False),
        ("Flights from Rio de Janeiro to Los Angeles", False),
        ("¿Dónde está la biblioteca?", True),
        ("Translate 'hello' into Thai", True),
        ("How many people speak Thai?", False),
        ("Explain it in plain English", False),
        ("привет, как дела", True),
        ("The letter π and the word λόγος mean something", False),
        ("é é", False),
    ],
)
def test_other_languages_than_english(text: str, expected: bool) -> None:
    assert (features.foreign(Text.of(text)) is not None) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer with the city only", True),
        ("Respond with just the colour", True),
        ("Answer only if you are sure", False),
        ("I only have a number of small questions for you about fish", False),
        ("Give me the parts as YAML", True),
        ("What is YAML?", False),
        ('Fill in {"name": ""}', True),
        ("Pick one of: red, blue", True),
    ],
)
def test_output_that_a_program_reads(text: str, expected: bool) -> None:
    asked = Text.of(text)
    found = features.output_format(asked) or features.structured(asked, NOTHING, Excerpt())

    assert (found is not None) is expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("Who was surprised?\n\n" + LONG, True),
        (LONG + "\n\nShorter, please.", True),
        (LONG, False),
        ("Text: " + LONG, True),
        ("Text:\n" + LONG, True),
        ("I lost my job and my flat.\n\n" + LONG + "\n\nWhat should I do with my life?", False),
        ("Summarize the plot of Hamlet", False),
    ],
)
def test_texts_that_are_given(request_: str, expected: bool) -> None:
    seen = Excerpt(request=request_, chars=len(request_), request_chars=len(request_))
    found = features.given_text(Text.of(instruction(request_)), NOTHING, seen)

    assert (found is not None) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a haiku on rust", True),
        ("Who invented the sonnet?", False),
        ("Tell me who wrote this song", False),
        ("Tell me a story", True),
        ("Invent a name", True),
        ("You are a helpful assistant and I have a question", False),
        ("You are my captain and I am the cook", True),
        ("Write a note to the milkman", False),
    ],
)
def test_things_to_be_invented(text: str, expected: bool) -> None:
    assert (features.creative(Text.of(text), NOTHING, Excerpt()) is not None) is expected


def test_an_instruction_is_the_short_lines_at_the_ends_of_a_long_text() -> None:
    assert asides("Shorter!\n" + LONG + "\nThanks.") == ["Shorter!", "Thanks."]
    assert instruction("Shorter!\n" + LONG) == "Shorter!"
    assert instruction("Shorter!") == "Shorter!"
    assert len(instruction(LONG)) < 500
