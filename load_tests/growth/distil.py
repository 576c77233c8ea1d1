"""Trains a draft on what its target says, so that its acceptance is that of a real draft.

A function grown into few layers is a poor draft: layers are merged or left out. Some minutes on a
GPU turn it into one with an acceptance as real drafts have. Nothing is downloaded: the target
writes the text itself, questions included.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import kl_div

QUESTION_TOKENS = 128


@dataclass(frozen=True)
class Training:
    """How long and how fast to train; a step sees `batch` rows."""

    steps: int = 600
    batch: int = 32
    micro_batch: int = 8  # rows at a time: the logits are what takes memory
    rate: float = 6e-4
    warm_up: int = 30


def write_texts(source: Path, count: int, *, answer_tokens: int, **engine: Any) -> list[list[int]]:
    """Let the model in `source` make up `count` questions and answer them, by vLLM.

    Half of the answers are greedy, the others sampled at temperature 1. Token ids, chat template
    included.
    """
    from vllm import LLM, SamplingParams

    llm: Any = LLM(str(source), max_model_len=QUESTION_TOKENS + answer_tokens + 64, **engine)
    try:
        tokenizer = llm.get_tokenizer()
        opening = tokenizer.apply_chat_template(
            [{"role": "user", "content": "\0"}], tokenize=False, add_generation_prompt=True
        ).split("\0")[0]
        ask = SamplingParams(temperature=1, top_p=0.95, max_tokens=QUESTION_TOKENS)
        asked = llm.generate([opening] * count, ask, use_tqdm=False)
        questions = [output.outputs[0].text.strip() for output in asked]
        chats = [[{"role": "user", "content": text}] for text in questions if text]
        answers = [
            SamplingParams(temperature=i % 2, max_tokens=answer_tokens) for i in range(len(chats))
        ]
        return [
            [*output.prompt_token_ids, *output.outputs[0].token_ids]
            for output in llm.chat(chats, answers, use_tqdm=False)
        ]
    finally:
        llm.llm_engine.engine_core.shutdown()


def pack(texts: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    """Return the texts one after the other in rows [n, width], the rest left out."""
    stream = torch.tensor([token for text in texts for token in text])
    return stream[: len(stream) // width * width].view(-1, width)


def train(
    teacher: Any, student: Any, rows: torch.Tensor, training: Training, *, seed: int = 0
) -> Iterator[float]:
    """Train `student` (float32 weights) to predict as `teacher` does; yield each step's loss.

    The loss is the mean KL divergence from the teacher's distribution over positions, in nats.
    """
    device = next(student.parameters()).device
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=training.rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, training))
    for batch in _batches(rows, training, random.Random(seed)):
        total = torch.zeros((), device=device)
        for part in batch.split(training.micro_batch):
            ids = part.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                with torch.no_grad():
                    wanted = teacher(ids, use_cache=False).logits.float().log_softmax(-1)
                said = student(ids, use_cache=False).logits
            loss = (
                kl_div(
                    said.float().log_softmax(-1).flatten(0, 1),
                    wanted.flatten(0, 1),
                    reduction="sum",
                    log_target=True,
                )
                / batch.numel()
            )
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        yield float(total)


def _rate(step: int, training: Training) -> float:
    """Return the share of the full rate: up in a line, down in half a cosine."""
    if step < training.warm_up:
        return (step + 1) / training.warm_up
    done = (step - training.warm_up) / max(1, training.steps - training.warm_up)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _batches(rows: torch.Tensor, training: Training, rng: random.Random) -> Iterator[torch.Tensor]:
    """Yield batches of rows, every row once before any comes again."""
    order: list[int] = []
    for _ in range(training.steps):
        while len(order) < training.batch:
            order += rng.sample(range(len(rows)), len(rows))
        chosen, order = order[: training.batch], order[training.batch :]
        yield rows[chosen]
