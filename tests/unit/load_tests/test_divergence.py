"""Where two greedy texts part, and whether a near tie explains it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from load_tests.divergence import margin


def token(text: str, logprob: float, **others: float) -> dict[str, Any]:
    """A token with its alternatives; names of alternatives write a space as an underscore."""
    top = {text: logprob} | {name.replace("_", " "): value for name, value in others.items()}
    return {
        "token": text,
        "logprob": logprob,
        "bytes": list(text.encode()),
        "top_logprobs": [
            {"token": name, "logprob": value, "bytes": list(name.encode())}
            for name, value in top.items()
        ],
    }


ANSWER = [token("Paris", -0.1, Lyon=-2.5), token(" is", -0.7, _was=-0.8, _has=-4.0)]
END = {
    **token("<|im_end|>", -0.3),
    "top_logprobs": [
        {"token": "<|im_end|>", "logprob": -0.3, "bytes": list(b"<|im_end|>")},
        {"token": ".", "logprob": -0.4, "bytes": list(b".")},
    ],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris is", 0.0),
        ("Paris was", 0.1),
        ("Paris was big", 0.1),
        ("Lyon is", 2.4),
        ("Paris will", math.inf),
        ("Rome", math.inf),
        ("Paris", math.inf),
        ("Paris is big", math.inf),
    ],
)
def test_the_margin_is_that_of_the_first_token_that_differs(text: str, expected: float) -> None:
    assert margin(ANSWER, text) == pytest.approx(expected)


def test_an_answer_that_ends_elsewhere() -> None:
    assert margin([*ANSWER, END], "Paris is") == 0.0
    assert margin([*ANSWER, END], "Paris is.") == pytest.approx(0.1)


def test_half_of_a_character_is_compared_as_bytes() -> None:
    parts = [
        {"token": "\ufffd", "logprob": -0.1, "bytes": list(half), "top_logprobs": []}
        for half in ("é".encode()[:1], "é".encode()[1:])
    ]
    assert margin(parts, "é") == 0.0
