"""Sampled answers of several prompts, tested together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rayspec.audit.client import Answer
from rayspec.audit.permutation import ENDED
from rayspec.audit.prompts import CHAT, Prompt
from rayspec.audit.sampled import compare, token_ids
from rayspec.audit.turns import Samples
from rayspec.routing.types import Lane

LENGTH, NUMBER = 6, 100


def drawn(lane: Lane, rng: np.random.Generator, *, favourite: float = 0.0) -> tuple[Answer, ...]:
    """Answers of independent tokens; from the second on, a share of them is the favourite."""
    answers = []
    for _ in range(NUMBER):
        tokens = [int(token) for token in rng.integers(0, 6, LENGTH)]
        tokens[1:] = [0 if rng.random() < favourite else token for token in tokens[1:]]
        drafted = 4 if lane is Lane.SPECULATIVE else 0
        answers.append(Answer(lane, "chat", (1,), tuple(tokens), "length", 0.1, 0.2, drafted, 2))
    return tuple(answers)


def asked(number: int, rng: np.random.Generator, favourite: float = 0.0) -> Samples:
    plain = drawn(Lane.PLAIN, rng)
    return Samples(
        Prompt(number, CHAT, {"messages": [{"role": "user", "content": f"Prompt {number}"}]}),
        plain,
        drawn(Lane.SPECULATIVE, rng, favourite=favourite),
    )


def test_only_the_faulty_prompt_differs() -> None:
    rng = np.random.default_rng(8)
    fine, faulty = compare([asked(1, rng), asked(2, rng, favourite=0.35)], LENGTH, 0.01)
    assert not any(test.differs for test in fine.tests)
    assert any(test.differs for test in faulty.tests)
    positions = faulty.tests[0]
    assert positions.result.most[1] == 0
    ours, plain = positions.result.shares
    assert ours > plain
    assert positions.result.by_group[0] > 0.01  # the first token is not drafted
    assert (faulty.prompt, faulty.asked, faulty.samples) == (2, "Prompt 2", (NUMBER, NUMBER))
    assert (faulty.drafted, faulty.accepted, faulty.exercised) == (400, 200, True)
    assert (faulty.drafted_answers, faulty.weak) == (NUMBER, False)


def test_p_values_are_corrected_for_all_tests() -> None:
    found = compare([asked(n, np.random.default_rng(n)) for n in range(2)], LENGTH, 0.01)
    tests = [test for each in found for test in each.tests]
    assert len(tests) == 4
    smallest = min(tests, key=lambda test: test.result.p)
    assert smallest.adjusted == pytest.approx(min(1.0, 4 * smallest.result.p))
    assert all(test.adjusted >= test.result.p for test in tests)


def test_few_drafted_answers_make_a_weak_test() -> None:
    each = asked(1, np.random.default_rng(3))
    undrafted = [replace(answer, drafted=0, accepted=0) for answer in each.speculative]
    few = replace(each, speculative=(each.speculative[0], *undrafted[1:]))
    none = replace(each, speculative=tuple(undrafted))
    (weak,) = compare([few], LENGTH, 0.01)
    assert (weak.exercised, weak.weak, weak.drafted_answers) == (True, True, 1)
    (idle,) = compare([none], LENGTH, 0.01)
    assert idle.exercised is False


def test_without_prompts_there_is_nothing() -> None:
    assert compare([], LENGTH, 0.01) == []


def test_tokens_of_a_category() -> None:
    assert token_ids((3, 17)) == [17]
    assert token_ids((0, 17, ENDED)) == [17]
    assert token_ids((3, "rare")) == []
