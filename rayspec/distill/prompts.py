"""The prompts of a distillation: the user's own, texts to go on with, or those made up here."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from rayspec.errors import ConfigError
from rayspec.ingress.classify import classify
from rayspec.planning.calibrate_prompts import built_in, read_prompts

__all__ = ["Question", "held_out", "own_prompts", "own_text", "read", "split", "write"]

_PIECE: Final = 400  # characters of a text that a target goes on with
_LEAST, _MOST = 24, 96  # held out of a user's prompts


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask the target: the body of an OpenAI request, or none to let it make one up.

    A body has `messages`, or `prompt` for a text to go on with. The class of what is made up is
    recognised once it is known.
    """

    body: Mapping[str, Any] | None
    workload_class: str = ""
    temperature: float = 0.0
    held_out: bool = False


def held_out() -> list[Question]:
    """Return the prompts that drafts are measured by, each once greedy and once sampled.

    They come with rayspec, written by hand, and none of them is among those that are made up.
    """
    rows = [
        json.loads(line)
        for package, name in (("distill", "held_out.jsonl"), ("audit", "prompts.jsonl"))
        for line in resources.files(f"rayspec.{package}")
        .joinpath(name)
        .read_text("utf-8")
        .splitlines()
    ]
    bodies = [prompt.body for prompt in built_in()]
    bodies += [{"messages": [{"role": "user", "content": row["prompt"]}]} for row in rows]
    names = [prompt.workload_class for prompt in built_in()] + [row["class"] for row in rows]
    return [
        Question(body, name, temperature, held_out=True)
        for temperature in (0.0, 1.0)
        for body, name in zip(bodies, names, strict=True)
    ]


def own_prompts(file: Path) -> list[Question]:
    """Return the user's prompts, in the format of `rayspec calibrate --prompts`.

    A body keeps its temperature; one without is asked greedily and sampled in turns.
    """
    return [
        Question(
            prompt.body,
            prompt.workload_class or classify(prompt.body, {}).name,
            float(prompt.body.get("temperature", number % 2)),
        )
        for number, prompt in enumerate(read_prompts(file))
    ]


def own_text(path: Path) -> list[Question]:
    """Return pieces of the user's text files, which the target goes on with.

    `path` is a file or a folder, of which every UTF-8 file is read.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    pieces: list[str] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        except OSError as error:
            raise ConfigError("text", str(file), f"cannot be read: {error.strerror}") from None
        pieces += [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    pieces = [piece for piece in pieces if len(piece.strip()) >= _PIECE // 8]
    if not pieces:
        raise ConfigError("text", str(path), "holds no UTF-8 text")
    return [
        Question({"prompt": piece}, classify({"prompt": piece}, {}).name, float(number % 2))
        for number, piece in enumerate(pieces)
    ]


def split(questions: Sequence[Question], seed: int, passes: int = 8) -> list[Question]:
    """Return the questions in a drawn order, some of which are held out, first.

    All others come `passes` times, sampled from the second time on.
    """
    rng = random.Random(seed)
    drawn = rng.sample(list(questions), len(questions))
    count = min(_MOST, max(_LEAST, len(drawn) // 20), len(drawn) // 4)
    if not count:
        raise ConfigError("prompts", len(drawn), "are too few to hold some out; give at least 4")
    kept = [
        replace(question, held_out=True, temperature=temperature)
        for temperature in (0.0, 1.0)
        for question in drawn[:count]
    ]
    others = drawn[count:]
    again = [
        replace(question, temperature=question.temperature or 1.0)
        for _ in range(passes - 1)
        for question in others
    ]
    return kept + others + again


def write(questions: Iterable[Question], file: Path) -> int:
    """Write one question a line and return how many there are."""
    partial, count = file.with_suffix(".partial"), 0
    with partial.open("w", encoding="utf-8") as out:
        for question in questions:
            out.write(json.dumps(asdict(question), ensure_ascii=False) + "\n")
            count += 1
    partial.replace(file)
    return count


def read(file: Path) -> Iterator[Question]:
    """Yield what `write` wrote."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield Question(**json.loads(line))
