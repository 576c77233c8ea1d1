from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rayspec.distill.acceptance import Counts, measure
from rayspec.distill.student import load
from rayspec.distill.texts import Text, Texts
from tests.support.distilling import VOCAB, build_target

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("right", "steps", "tested", "accepted"),
    [
        ("11111", 2, [2, 2], [2, 2]),  # a step of three tokens, then one of two
        ("0000", 4, [4, 0], [0, 0]),
        ("1011", 2, [2, 2], [2, 1]),
        ("", 0, [0, 0], [0, 0]),
    ],
)
def test_steps_of_two_drafts(
    right: str, steps: int, tested: list[int], accepted: list[int]
) -> None:
    counts = Counts(2)
    counts.add([mark == "1" for mark in right])
    assert (counts.steps, counts.tested, counts.accepted) == (steps, tested, accepted)


def greedy(model: object, ids: list[int], count: int) -> list[int]:
    answer: list[int] = []
    with torch.inference_mode():
        for _ in range(count):
            logits = model(torch.tensor([ids + answer])).logits  # type: ignore[operator]
            answer.append(int(logits[0, -1].argmax()))
    return answer


def test_speculation_with_the_draft_accepts_as_many(tmp_path: Path) -> None:
    """The counts are those of drafting for real, a token at a time after what was accepted."""
    target = load(build_target(tmp_path / "target"), torch.float32, CPU)
    draft = load(build_target(tmp_path / "draft", layers=1), torch.float32, CPU)
    prompt, k = [5, 80, 17], 4
    answer = greedy(target, prompt, 40)
    found = measure(target, draft, Texts.of([Text(prompt, answer, "chat")]), k=k)["chat"]
    at = steps = tested = accepted = 0
    while at < len(answer):
        drafts = greedy(draft, prompt + answer[:at], k)
        steps += 1
        taken = 0
        for drafted, wanted in zip(drafts, answer[at:], strict=False):
            tested += 1
            if drafted != wanted:
                break
            taken += 1
        accepted += taken
        at += taken + 1
    assert found.greedy == accepted / tested
    assert found.tokens_per_step == 1 + accepted / steps
    assert found.texts == 1
    assert found.tokens == 40


def test_a_model_accepts_itself(tmp_path: Path) -> None:
    target = load(build_target(tmp_path), torch.float32, CPU)
    answer = greedy(target, [7, 9], 12)
    texts = Texts.of([Text([7, 9], answer, "code"), Text([7, 9], [3, 4, 5], "chat", 1.0)])
    found = measure(target, target, texts)
    assert list(found) == ["chat", "code", "all"]
    assert found["code"].greedy == 1
    assert found["code"].sampled is None
    assert found["chat"].greedy is None
    assert found["chat"].sampled == pytest.approx(1, abs=1e-5)
    assert found["all"].texts == 2


def test_only_drafted_tokens_are_proposed(tmp_path: Path) -> None:
    target = load(build_target(tmp_path), torch.float32, CPU)
    answer = greedy(target, [7, 9], 12)
    texts = Texts.of([Text([7, 9], answer, "code"), Text([7, 9], answer, "code", 1.0)])
    others = torch.tensor([token for token in range(VOCAB) if token not in answer])
    found = measure(target, target, texts, drafted=others)["code"]
    assert found.greedy == 0
    assert found.sampled is not None
    assert found.sampled < 0.9
    assert measure(target, target, texts, drafted=torch.tensor(answer).unique())["code"].greedy == 1
