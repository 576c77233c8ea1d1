"""Has questions answered in pieces until all are or the time is over, and stores the texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from rayspec.distill.encode import Encoder
from rayspec.distill.generate import Ask, Generator
from rayspec.distill.prompts import Question
from rayspec.distill.texts import Text, Texts
from rayspec.ingress.classify import classify

__all__ = ["QUESTION_TOKENS", "answer_all"]

QUESTION_TOKENS = 96
_FIRST, _MOST, _LEAST = 1024, 4096, 128  # questions at a time
_TAIL = 0.85  # of the time left: the last answers of a piece run alone


def answer_all(
    questions: Iterable[Question],
    encoder: Encoder,
    generator: Generator,
    folder: Path,
    name: str,
    *,
    answer_tokens: int,
    max_len: int,
    deadline: float,
    piece: int = _FIRST,
    told: Callable[[int, int], None] = lambda texts, tokens: None,
) -> None:
    """Store the answers to `questions` in `folder`, one shard a piece, until `deadline`.

    Goes on after the questions that shards of this `name` have answered already. `deadline` is of
    `time.time`, so that it holds across processes; the held-out questions, which come first, are
    answered whatever it says. `told` gets the texts and tokens of each piece.
    """
    done = sorted(folder.glob(f"{name}-*.npz"))
    number = len(done)
    left = iter(questions)
    for file in done:
        for _ in range(int(file.stem.rsplit("-", 1)[1])):
            next(left, None)
    size, opening = piece, encoder.opening()
    while True:
        asked = list(islice(left, size))
        if not asked or (time.time() >= deadline and not asked[0].held_out):
            return
        began = time.time()
        found = _answer(asked, opening, encoder, generator, answer_tokens, max_len)
        texts = Texts.of(found)
        texts.save(folder / f"{name}-{number:05}-{len(asked)}.npz")
        number += 1
        told(len(texts), texts.answer_tokens)
        each = (time.time() - began) / len(asked)
        size = min(_MOST, int(_TAIL * (deadline - time.time()) / each))
        if asked[-1].held_out:  # there may be more of them
            size = max(size, piece)
        elif size < min(_LEAST, piece):
            return


def _answer(
    asked: list[Question],
    opening: list[int] | None,
    encoder: Encoder,
    generator: Generator,
    answer_tokens: int,
    max_len: int,
) -> list[Text]:
    known = [question for question in asked if question.body is not None]
    unknown = [question for question in asked if question.body is None]
    if unknown and opening is not None:
        made_up = generator.answer([Ask(opening, 1.0, QUESTION_TOKENS)] * len(unknown))
        for question, ids in zip(unknown, made_up, strict=True):
            if text := encoder.text(ids):
                body = {"messages": [{"role": "user", "content": text}]}
                name = classify(body, {}).name
                known.append(Question(body, name, question.temperature))
    prompts = [encoder.prompt(question) for question in known]
    fitting = [
        (question, prompt)
        for question, prompt in zip(known, prompts, strict=True)
        if 0 < len(prompt) <= max_len - answer_tokens
    ]
    answers = generator.answer(
        [Ask(prompt, question.temperature, answer_tokens) for question, prompt in fitting]
    )
    return [
        Text(prompt, answer, question.workload_class, question.temperature, question.held_out)
        for (question, prompt), answer in zip(fitting, answers, strict=True)
        if answer
    ]
