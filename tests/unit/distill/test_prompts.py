from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from rayspec.distill.compose import compose
from rayspec.distill.harvest import Function, Harvest
from rayspec.distill.prompts import (
    Question,
    held_out,
    own_prompts,
    own_text,
    read,
    split,
    write,
)
from rayspec.errors import ConfigError
from rayspec.ingress.classify import BUILTIN_CLASSES

FOUND = Harvest(
    functions=[
        Function(f"name{i}", ("a", "b"), f"Return number {i} of them", f"def name{i}(a, b):\n    x")
        for i in range(50)
    ],
    prose=[f"Some prose about {i} things. " * 12 for i in range(50)],
    packages=["alpha", "beta"],
)


def said(question: Question) -> str:
    assert question.body is not None
    return str(question.body["messages"][-1]["content"])


def test_held_out_prompts() -> None:
    questions = held_out()
    counts = Counter((question.workload_class, question.temperature) for question in questions)
    assert {name for name, _ in counts} == set(BUILTIN_CLASSES)
    assert min(counts.values()) >= 10
    assert all(question.held_out for question in questions)
    greedy = [said(question) for question in questions if not question.temperature]
    assert len(set(greedy)) == len(greedy)


def test_made_up_prompts() -> None:
    questions = list(islice(compose(FOUND, seed=1), 6000))
    assert questions == list(islice(compose(FOUND, seed=1), 6000))
    assert questions != list(islice(compose(FOUND, seed=2), 6000))
    made_up = [question for question in questions if question.body is None]
    known = [question for question in questions if question.body is not None]
    assert 0.15 < len(made_up) / len(questions) < 0.25
    shares = Counter(question.workload_class for question in known)
    assert set(shares) == set(BUILTIN_CLASSES)
    assert shares["code"] > shares["structured"]
    # Greedily the same prompt would have the same answer.
    greedy = [said(question) for question in known if not question.temperature]
    assert len(set(greedy)) == len(greedy) > 2000
    texts = {said(question) for question in known}
    assert not any("{}" in text or "{source}" in text or "{name}" in text for text in texts)
    assert not texts & {said(question) for question in held_out()}


def test_made_up_without_any_package() -> None:
    questions = list(islice(compose(Harvest(), seed=1), 500))
    assert {q.workload_class for q in questions if q.body} >= {"code", "chat", "creative"}


def test_own_prompts(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [
        {"class": "legal", "prompt": "Is this valid?"},
        {"messages": [{"role": "user", "content": "Write a poem about rain."}], "temperature": 0.7},
        {"prompt": "Write a Python function that sorts."},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    found = own_prompts(file)
    assert [question.workload_class for question in found] == ["legal", "creative", "code"]
    assert [question.temperature for question in found][1] == 0.7


def test_own_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A sentence that goes on. " * 40)
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00" * 100)
    found = own_text(tmp_path)
    assert len(found) == 3
    assert all(question.body and "prompt" in question.body for question in found)
    assert own_text(tmp_path / "a.txt") == found
    with pytest.raises(ConfigError, match="holds no UTF-8 text"):
        own_text(tmp_path / "b.bin")


def test_split_holds_out_what_is_not_learned_from() -> None:
    questions = [Question({"prompt": str(number)}, "chat") for number in range(100)]
    found = split(questions, seed=0, passes=3)
    kept = [question for question in found if question.held_out]
    assert found[: len(kept)] == kept
    assert Counter(question.temperature for question in kept) == {0.0: 24, 1.0: 24}
    learned = {str(question.body) for question in found if not question.held_out}
    assert not learned & {str(question.body) for question in kept}
    assert len(found) == 48 + 3 * 76
    assert sum(question.temperature > 0 for question in found[48:]) == 2 * 76
    with pytest.raises(ConfigError, match="too few"):
        split(questions[:3], seed=0)


def test_files(tmp_path: Path) -> None:
    questions = [Question(None, temperature=1.0), Question({"prompt": "ü"}, "chat", 0.0, True)]
    assert write(questions, tmp_path / "q.jsonl") == 2
    assert list(read(tmp_path / "q.jsonl")) == questions
