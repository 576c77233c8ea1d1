from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rayspec.distill import student
from rayspec.distill.answer import answer_all
from rayspec.distill.encode import Encoder
from rayspec.distill.generate import Ask, TransformersGenerator
from rayspec.distill.prompts import Question
from rayspec.distill.texts import Texts
from tests.support.distilling import END, build_target

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def model(target: Path) -> Any:
    return student.load(target, torch.float32, CPU)


def test_greedy_answers_are_the_models_own(model: Any) -> None:
    prompts = [[5, 6, 7, 8], [9], [20, 21], [30]]
    found = TransformersGenerator(model, END, batch=3).answer(
        [Ask(prompt, index % 2 * 1.0, 9) for index, prompt in enumerate(prompts)]
    )
    for prompt, answer in list(zip(prompts, found, strict=True))[::2]:
        ids = list(prompt)
        with torch.inference_mode():
            while len(ids) < len(prompt) + 9 and END not in ids[len(prompt) :]:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer == ids[len(prompt) :]
    assert all(0 < len(answer) <= 9 for answer in found)


def test_an_answer_ends_with_the_end_of_text(model: Any) -> None:
    found = TransformersGenerator(model, END, batch=64).answer([Ask([5], 1.0, 200)] * 64)
    ended = [answer for answer in found if END in answer]
    assert ended
    assert all(answer.index(END) == len(answer) - 1 for answer in ended)
    assert len({tuple(answer) for answer in found}) > 32


def test_encoding(target: Path) -> None:
    encoder = Encoder(target)
    asked = {"messages": [{"role": "user", "content": "word1 and"}]}
    ids = encoder.prompt(Question(asked))
    assert encoder.tokenizer.decode(ids) == (
        "<|im_start|>user\nword1 and<|im_end|>\n<|im_start|>assistant\n"
    )
    opening = encoder.opening()
    assert opening is not None
    assert ids[: len(opening)] == opening
    assert encoder.text(encoder.prompt(Question({"prompt": "word1 and"}))) == "word1 and"


def questions(held_out: int, others: int) -> list[Question]:
    return [
        Question({"prompt": f"word{number}"}, "chat", 0.0, number < held_out)
        for number in range(held_out + others)
    ]


def run(target: Path, model: Any, asked: list[Question], folder: Path, **options: Any) -> Texts:
    encoder = Encoder(target)
    arguments = {"answer_tokens": 4, "max_len": 64, "deadline": time.time() + 60, "piece": 4}
    folder.mkdir(exist_ok=True)
    answer_all(
        iter(asked),
        encoder,
        TransformersGenerator(model, encoder.end),
        folder,
        "t0",
        **{**arguments, **options},
    )
    return Texts.load(folder)


def test_all_are_answered_once_also_after_a_stop(target: Path, model: Any, tmp_path: Path) -> None:
    asked = questions(3, 18)
    whole = run(target, model, asked, tmp_path / "whole")
    assert len(whole) == 21
    assert whole.held_out.sum() == 3
    run(target, model, asked[:5], tmp_path / "some")
    resumed = run(target, model, asked, tmp_path / "some")
    assert resumed.tokens.tolist() == whole.tokens.tolist()
    again = run(target, model, asked, tmp_path / "some")
    assert len(again) == 21


def test_a_deadline_spares_what_is_held_out(target: Path, model: Any, tmp_path: Path) -> None:
    texts = run(target, model, questions(10, 40), tmp_path, deadline=time.time() - 1)
    assert texts.held_out.sum() == 10
    assert len(texts) < 16


def test_questions_that_the_target_makes_up(target: Path, model: Any, tmp_path: Path) -> None:
    texts = run(target, model, [Question(None)] * 6, tmp_path, max_len=256)
    opening = Encoder(target).opening()
    assert opening is not None
    assert 4 <= len(texts) <= 6
    for start in texts.starts:
        assert texts.tokens[start : start + len(opening)].tolist() == opening
    assert all(texts.classes)


def test_prompts_that_are_too_long_are_left_out(target: Path, model: Any, tmp_path: Path) -> None:
    asked = [*questions(0, 2), Question({"prompt": "word " * 100}, "chat")]
    assert len(run(target, model, asked, tmp_path)) == 2
